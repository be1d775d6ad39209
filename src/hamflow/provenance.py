"""Where a number comes from: code, versions, machine."""

import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("hamflow", "torch", "numpy", "scipy", "safetensors")


def provenance(**facts: Any) -> dict[str, Any]:
    """Facts of one result (seed, data_sha256, checkpoint_sha256, params_sha256, device, wall_seconds, ...), with the
    git commit of the code, whether the tree had changes, and the versions of what computed it."""
    return {**source_version(), "python": sys.version.split()[0], "packages": versions(), **facts}


@cache
def source_version() -> dict[str, Any]:
    """{git_commit, git_dirty} of the tree that this package runs from; None where it is no git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
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


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
