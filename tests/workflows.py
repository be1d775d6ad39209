"""A copy of the workflow in a folder, and Snakemake in it: for the tests of the pipeline and of the cluster."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREE = (
    "Snakefile",
    "params.yaml",
    "dvc.yaml",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "profiles",
    "workflow",
    "src",
)

# Fewer and smaller still than the smoke preset: two methods on one data set of points, no feature network.
TINY = {
    "run": {"datasets": ["checkerboard"], "methods": ["edm", "reflection"]},
    "datasets": {"checkerboard": {"n_samples": 100, "training": {"train_kimg": 2, "report_kimg": 1, "state_kimg": 1}}},
    "sampling": {"settings": {"heun": [3], "multistep": [2]}},
    "evaluation": {"more": None, "beyond": None, "proxy": None},
    "studies": {name: None for name in ("mixture", "scatter", "taylor", "comparison", "reflection", "search")},  # two are left
}


@dataclass(frozen=True, order=True)
class Job:
    """One job of a dry run."""

    rule: str
    wildcards: str


class Workflow:
    """Snakemake in a folder that holds a copy of the repository's workflow."""

    def __init__(self, folder: Path):
        self.folder = folder

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a command there, as in an activated environment; stdout and stderr together.

        Snakemake finds the folder's own hamflow by itself; `hamflow` is the installed one, but for PYTHONPATH.
        """
        paths = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
        }
        if arguments[0] != "snakemake":
            paths["PYTHONPATH"] = str(self.folder / "src")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env=inherited | paths,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{arguments} exited with {done.returncode}\n{done.stdout}")
        return done

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run Snakemake there."""
        return self.command("snakemake", *arguments, check=check)

    def pending(self, *arguments: str) -> set[Job]:
        """The jobs that a dry run says it would run, but for `all`."""
        text = self.snakemake("--dry-run", *arguments).stdout
        blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", text, flags=re.MULTILINE)
        jobs = set()
        for rule, block in blocks:
            wildcards = re.search(r"^    wildcards: (.*)$", block, flags=re.MULTILINE)
            jobs.add(Job(rule, wildcards[1] if wildcards else ""))
        assert jobs or "Nothing to be done" in text, text
        return {job for job in jobs if job.rule != "all"}

    def pending_rules(self, *arguments: str) -> set[str]:
        """The rules of `pending`."""
        return {job.rule for job in self.pending(*arguments)}

    @contextmanager
    def edited(self, path: str, old: str, new: str):
        """A file of the tree with some text replaced, for a while."""
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new, 1))
        try:
            yield
        finally:
            file.write_text(text)


def copy_tree(folder: Path, origin: Path = ROOT) -> Path:
    """What the workflow needs of the repository, copied."""
    for name in TREE:
        source, target = origin / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    return folder
