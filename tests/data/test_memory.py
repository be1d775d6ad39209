"""How much memory a training takes: its peak does not grow with the data set."""

import os
import subprocess
import sys

import pytest

ROWS = {"small": 1_000, "large": 70_000}
MOST = 300  # MB more for the large one

PROGRAM = '''
"""Makes random images, or trains on those that are there with a network of one convolution; prints its peak in MB."""
import resource, sys, tempfile
from pathlib import Path

import numpy as np
import torch

from hamflow import config
from hamflow.data.preparation import FORMAT
from hamflow.files import sha256_of, write_json
from hamflow.networks.base import NETWORKS
from hamflow.verbs._training import train

verb, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


@NETWORKS.register("mixing")
class Mixing(torch.nn.Module):
    sample_dims = 3

    def __init__(self, shape, classes=0):
        super().__init__()
        self.mix = torch.nn.Conv2d(shape[0], shape[0], 1)

    def forward(self, x, noise_label, class_label=None):
        return self.mix(x)


if verb == "make":
    folder.mkdir()
    rows = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, 64, 64, 3))
    for start in range(0, count, 1000):
        rows[start : start + 1000] = np.random.default_rng(start).integers(0, 256, (1000, 64, 64, 3), dtype=np.uint8)
    rows.flush()
    about = {"format": FORMAT, "name": "random", "source": "images", "options": {}, "kind": "image", "shape": [3, 64, 64]}
    about |= {"count": count, "split": {"train": count, "test": 0}, "classes": 0, "sigma_data": 0.58, "box": [-1.0, 1.0]}
    write_json(folder / "dataset.json", about | {"sha256": {"images.npy": sha256_of(folder / "images.npy")}})
else:
    parameters = config.load(["params.yaml"])
    training = {"train_kimg": 10, "batch": 250, "microbatch": 250, "report_kimg": 10, "state_kimg": 10}
    parameters["datasets"]["random"] = {**parameters["datasets"]["digits"], "training": training}
    parameters["networks"]["unet"] = {"kind": "mixing"}
    with tempfile.TemporaryDirectory() as output:
        train(config.training_spec(parameters, "random", "edm"), folder, 0, Path(output), "cpu")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
'''


@pytest.mark.slow
def test_the_peak_of_a_training_does_not_grow_with_the_data_set(tmp_path):
    """The training of `hamflow train`, with the check of all digests and rows from everywhere in the set."""
    peak = {}
    for name, count in ROWS.items():
        for verb in ("make", "train"):
            command = [sys.executable, "-c", PROGRAM, verb, str(tmp_path / name), str(count)]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            assert done.returncode == 0, done.stderr
        peak[name] = float(done.stdout.splitlines()[-1])
    size = ROWS["large"] * 64 * 64 * 3 / 2**20
    assert size > 2 * MOST  # the difference would show
    assert peak["large"] - peak["small"] < MOST, peak
