"""The smallest real run of the workflow, done once without disturbance, and copies of it to disturb."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from workflows import ROOT, Workflow, copy_tree

from hamflow import config

TABLE = "results/quickstart/tables/table1.csv"
TINY = {  # one method, one seed, one setting; a training of some seconds, so that there is time to kill it
    "preset": "quickstart",
    "run": {"datasets": ["checkerboard"], "methods": ["reflection"]},
    "datasets": {
        "checkerboard": {
            "options": {"count": 2000},
            "n_samples": 50,
            "training": {"train_kimg": 60, "report_kimg": 1, "state_kimg": 1},
        }
    },
    "networks": {"mlp": {"width": 16, "depth": 1}},
    "sampling": {"settings": {"heun": [3], "multistep": None}},
    "metrics": {"hsd": {"sigmas": []}},
    "studies": dict.fromkeys(("mixture", "scatter", "taylor", "gradients", "comparison", "phase_space", "reflection")),
    "tracking": {"uri": ""},
}


class Tree(Workflow):
    """A copy of the workflow in which commands may also be started and left to themselves."""

    def start(self, *arguments):
        """A command in a session of its own, so that killing it kills what is meant and nothing else."""
        paths = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(self.folder / "src"),
            "OMP_NUM_THREADS": "1",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with open(self.folder / "started.log", "a") as log:
            return subprocess.Popen(
                arguments, cwd=self.folder, env=inherited | paths, stdout=log, stderr=log, start_new_session=True
            )

    def make(self, check=True):
        """Run the workflow up to the table, on two cores."""
        return self.snakemake("--cores", "2", TABLE, check=check)

    def forget(self, *names):
        """Remove files or folders."""
        for name in names:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def find(self, pattern):
        """The one file of a pattern."""
        (path,) = self.folder.glob(pattern)
        return path

    def wait_for(self, pattern, process=None, seconds=300):
        """Until there is such a file; the process, if given, must still run then."""
        for _ in range(int(seconds / 0.02)):
            if any(self.folder.glob(pattern)):
                return
            assert process is None or process.poll() is None, (self.folder / "started.log").read_text()
            time.sleep(0.02)
        pytest.fail(f"no {pattern} after {seconds} s")

    def outcome(self):
        """The bytes that a run is for: weights, samples and the table."""
        patterns = (TABLE, "checkpoints/**/*.safetensors", "results/**/*.npy")
        files = [path for pattern in patterns for path in self.folder.glob(pattern)]
        assert len(files) == 3, files
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}

    def nothing_half_written(self):
        """No temporary file, and no file that its reader would refuse."""
        assert not [path for root in ("data", "checkpoints", "results") for path in (self.folder / root).rglob("*.tmp*")]
        return True


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A tree in which the tiny run was done from beginning to end."""
    tree = Tree(copy_tree(tmp_path_factory.mktemp("undisturbed")))
    defaults, smoke = ROOT / "params.yaml", ROOT / "workflow/presets/smoke.yaml"
    tiny = config.check(config.merge(config.load([defaults, smoke]), TINY))
    (tree.folder / "params.yaml").write_text(yaml.safe_dump(tiny))
    tree.make()
    return tree


@pytest.fixture
def tree(undisturbed, tmp_path):
    """A copy of the undisturbed tree, with everything that Snakemake remembers of it."""
    shutil.copytree(undisturbed.folder, tmp_path / "tree", symlinks=True)
    return Tree(tmp_path / "tree")


@pytest.fixture
def unmade(tree):
    """A copy with data, but without checkpoints and results."""
    tree.forget("checkpoints", "results")
    return tree


@pytest.fixture
def job(tree):
    """The command line of the one training, as the workflow gives it, into a folder of its own."""
    return ["hamflow", "train", "quickstart/checkerboard/reflection/seed0", "--output"]
