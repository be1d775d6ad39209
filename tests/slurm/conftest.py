"""The cluster that all tests here share."""

import shutil
import subprocess
from pathlib import Path

import pytest
from slurm_cluster import Cluster

HERE = Path(__file__).parent
UNABLE = 77  # exit code of `start` where this machine cannot have a SLURM


@pytest.fixture(scope="session")
def cluster():
    """A SLURM of three virtual nodes; skipped where this machine cannot have one."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="needs pip install '.[slurm]'")
    folder = Path("/tmp/hamflow-slurm")  # munged refuses pytest's own temporary folders: others may not enter them
    started = subprocess.run([HERE / "start", folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if started.returncode == UNABLE:
        pytest.skip(started.stdout.strip())
    assert started.returncode == 0, started.stdout
    yield Cluster(folder)
    subprocess.run([HERE / "stop", folder], check=True)
    shutil.rmtree(folder)
