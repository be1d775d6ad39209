"""What many tests need: one thread, so that equal work gives equal bits, and small prepared data."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from hamflow import config, data

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_config():
    """The default parameters with the smallest networks and budgets that still train."""
    return config.load(
        ["params.yaml", "workflow/presets/smoke.yaml"],
        ["networks.unet.dropout=0.1", "training.state_kimg=0.128", "training.report_kimg=0.128"],
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, tiny_config):
    """A folder with the data sets of the smoke preset."""
    root = tmp_path_factory.mktemp("data")
    for name in tiny_config["run"]["datasets"]:
        data.prepare(config.dataset_spec(tiny_config, name), root / name)
    return root


def pytest_collection_modifyitems(items):
    """The longest groups first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)
