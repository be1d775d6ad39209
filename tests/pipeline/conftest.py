"""A copy of the workflow in a temporary folder, run once on tiny settings by the real Snakemake."""

import shutil
from pathlib import Path

import pytest
import yaml
from workflows import ROOT, TINY, Workflow, copy_tree

from hamflow import config


@pytest.fixture(scope="session")
def fresh(tmp_path_factory) -> Workflow:
    """A tree in which nothing was run."""
    return Workflow(copy_tree(tmp_path_factory.mktemp("fresh")))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Workflow:
    """A tree whose parameters are tiny, and in which `dvc repro` ran everything once."""
    workflow = Workflow(copy_tree(tmp_path_factory.mktemp("finished")))
    defaults, smoke = ROOT / "params.yaml", ROOT / "workflow/presets/smoke.yaml"
    tiny = config.merge(config.load([defaults, smoke]), TINY) | {"preset": "quickstart"}
    (workflow.folder / "params.yaml").write_text(yaml.safe_dump(tiny))
    workflow.command("dvc", "config", "core.no_scm", "true")
    workflow.command("dvc", "repro")
    return workflow


def in_git(workflow: Workflow) -> Workflow:
    """The folder as a git repository with one commit of all that git is to know."""
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    workflow.command("git", "init", "--quiet", "--initial-branch=main")
    workflow.command("dvc", "config", "core.no_scm", "false")
    workflow.command("git", "add", "--all")
    workflow.command(*git, "commit", "--quiet", "--message", "all")
    return workflow


@pytest.fixture(scope="session")
def pushed(finished, tmp_path_factory) -> Workflow:
    """A repository whose results were pushed to its remote, the folder beside it; a clone of it has none of them."""
    folder = tmp_path_factory.mktemp("pushed") / "repository"
    shutil.copytree(finished.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    workflow = in_git(Workflow(folder))
    workflow.command("dvc", "push")
    shutil.rmtree(folder / ".dvc" / "cache")
    return workflow


def clone_of(pushed: Workflow, folder: Path) -> Workflow:
    """A clone after `dvc pull`, and a remote of its own beside it."""
    pushed.command("git", "clone", "--quiet", str(pushed.folder), str(folder / "clone"))
    shutil.copytree(pushed.folder.parent / "dvc-remote", folder / "dvc-remote")
    clone = Workflow(folder / "clone")
    clone.command("dvc", "pull")
    return clone


@pytest.fixture
def pulled(pushed, tmp_path) -> Workflow:
    return clone_of(pushed, tmp_path)
