"""One number of threads, for every library and however a job is started."""

import os
import subprocess
import sys

import pytest

SAY = """
from hamflow import cli
cli.main(["doctor"])
import numpy, scipy.linalg, torch
from threadpoolctl import threadpool_info
from hamflow import runtime
runtime.configure("cpu")
print("POOLS", *sorted({pool["num_threads"] for pool in threadpool_info()}), torch.get_num_threads())
"""


@pytest.mark.parametrize(("asked", "threads"), [(None, "1"), ("2", "2")])
def test_every_numerical_library_has_the_threads_that_were_asked_for(asked, threads):
    pytest.importorskip("threadpoolctl")
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"OMP_NUM_THREADS": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", SAY], env=environment, capture_output=True, text=True, check=True)
    pools = done.stdout.split("POOLS")[1].split()
    assert set(pools) == {threads}
