"""docs/extending.md, followed to the letter: each block goes to the file that it names, and the chain runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hamflow.files import read_json


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with everything of the page added, and parameters that use it."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree("src", root / "src")
    params = yaml.safe_load(Path("params.yaml").read_text())
    for kind, body in re.findall(r"```(\w+)\n(.*?)```", Path("docs/extending.md").read_text(), flags=re.DOTALL):
        first, rest = body.split("\n", 1)
        target = first.removeprefix("# ")
        if kind == "yaml":
            params[target] |= yaml.safe_load(rest)
        elif not (root / target).exists():
            (root / target).write_text(rest)
        else:
            with open(root / target, "a") as file:
                file.write(f"\n\n{rest}")
    params["run"] = {"datasets": ["circle"], "methods": ["leaning"]}
    params["sampling"]["settings"] = {"ralston": [10]}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


def hamflow(root, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "hamflow.cli", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_was_added_is_prepared_trained_sampled_and_measured(extended):
    run = "quickstart/circle/leaning/seed0"
    hamflow(extended, "prepare", "quickstart/circle")
    hamflow(extended, "train", run)
    hamflow(extended, "sample", run)
    hamflow(extended, "evaluate", "quickstart/circle")
    hamflow(extended, "evaluate", run)
    found = read_json(extended / "results/quickstart/metrics/circle/leaning/seed0/ralston-nfe10.json")
    assert (found["method"], found["label"], found["nfe"]) == ("leaning", "Leaning HGF", 10)
    assert found["metrics"]["mean_radius"]["value"] == pytest.approx(1, abs=0.15)


def test_the_added_flow_passes_every_flow_test(extended):
    shutil.copytree("tests/flows", extended / "tests" / "flows")
    shutil.copy("tests/conftest.py", extended / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/flows", "-k", "leaning"],
        cwd=extended,
        env={**os.environ, "PYTHONPATH": str(extended / "src")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 14
