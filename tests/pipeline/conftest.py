"""A copy of the workflow in a temporary folder, run once on tiny settings by the real Snakemake."""

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
