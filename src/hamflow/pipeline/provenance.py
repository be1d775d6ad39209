"""Where a number comes from: code, versions, machine."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hamflow.files import fingerprint, read_json

PACKAGES = ("hamflow", "torch", "numpy", "scipy", "safetensors")
SOURCES = ("src", "workflow", "Snakefile", "params.yaml")  # a change of these makes a run dirty


def origin(**facts: Any) -> dict[str, Any]:
    """What determines a result: facts (seed, data_sha256, checkpoint_sha256, params_sha256, device, ...) and versions."""
    return {"python": sys.version.split()[0], "packages": versions(), **facts}


def circumstances(**facts: Any) -> dict[str, Any]:
    """What differs between two runs of equal work: {git_commit, git_dirty, host, ...}; `host` is the kind of machine."""
    return {**source_version(), "host": f"{platform.system()} {platform.machine()}", **facts}


def run_key(preset: str, dataset: str, method: str, seed: int, spec: Mapping[str, Any] | None) -> str:
    """The name of a run that anyone can compute: equal runs have equal keys. `spec` is the training spec."""
    return fingerprint({"preset": preset, "dataset": dataset, "method": method, "seed": seed, "spec": spec})


def read_circumstances(path: Path) -> dict[str, Any]:
    """A run.json; empty where there is none, as after `dvc pull`, or where it cannot be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@cache
def source_version() -> dict[str, Any]:
    """{git_commit, git_dirty} of the tree that this package runs from; None where it is no git checkout.

    Dirty: code or parameters differ from the commit; a new file, such as a flow that was added, counts.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    commit = git(root, "rev-parse", "HEAD")
    status = git(root, "status", "--porcelain", "--untracked-files=normal", "--", *SOURCES)
    return {"git_commit": commit, "git_dirty": None if status is None else bool(status)}


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that compute."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # running from a source tree that was never installed
            continue
    return found


def git(root: Path, *arguments: str) -> str | None:
    """What a git command says in a folder; None where git is absent or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
