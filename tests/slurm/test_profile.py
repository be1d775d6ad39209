"""The profile fits the workflow; no SLURM is needed to see that."""

import re

import pytest
import yaml
from workflows import ROOT, Workflow, copy_tree

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
SMOKE = ("--configfile", "workflow/presets/smoke.yaml")  # has every rule


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    return Workflow(copy_tree(tmp_path_factory.mktemp("profile")))


@pytest.fixture(scope="module")
def resources(workflow):
    """The resources of a job of each rule, from a dry run where the submitting machine has a GPU itself."""
    with workflow.edited("workflow/rules/common.smk", "GPU = int(", "GPU = 1 or int("):
        said = workflow.snakemake("--workflow-profile", "profiles/slurm", "--dry-run", *SMOKE).stdout
    blocks = re.findall(r"^ *rule (\w+):\n(?: +.*\n)*? +resources: (.*)$", said, flags=re.MULTILINE)
    assert blocks, said
    return {rule: dict(entry.split("=", 1) for entry in text.split(", ")) for rule, text in blocks}


def test_every_rule_that_the_profile_names_is_one(workflow):
    rules = set(workflow.snakemake("--list-rules", *SMOKE).stdout.split())
    assert {*PROFILE["set-resources"], *PROFILE["groups"]} <= rules


def test_what_asks_for_a_gpu_goes_where_they_are_and_nothing_else_does(resources):
    assert resources["train"]["gpu"] == "1"
    for rule, asked in resources.items():
        assert (asked["slurm_partition"] == "gpu") == (asked.get("gpu", "0") != "0"), rule


def test_training_is_warned_before_its_time_is_over(resources):
    seconds = int(re.fullmatch("--signal=TERM@([0-9]+)", resources["train"]["slurm_extra"])[1])
    assert 0 < seconds < 60 * int(resources["train"]["runtime"])
