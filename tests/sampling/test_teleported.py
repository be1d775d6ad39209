"""Samplers that start lower: asked for by name in the parameters, from the mean and covariance of the data."""

import numpy as np
import pytest
import torch

from hamflow import config, data, load
from hamflow.errors import ConfigurationError
from hamflow.sampling.teleportation import Teleport
from hamflow.verbs._training import train
from hamflow.verbs.sample import sample

SETTINGS = {"teleported_multistep": [3], "multistep": [3]}


@pytest.fixture(scope="module")
def checkpoint(prepared, tiny_config, tmp_path_factory):
    spec = config.training_spec(tiny_config, "checkerboard", "oscillation")
    return train(spec, prepared / "checkerboard", 0, tmp_path_factory.mktemp("run"), "cpu")


def with_sampling(base, **changes):
    return config.check({**base, "sampling": {**base["sampling"], **changes}})


def only(base, *methods, settings, **changes):
    run = {"datasets": ["checkerboard"], "methods": list(methods)}
    free = {**base["datasets"], "checkerboard": {**base["datasets"]["checkerboard"], "methods": None}}
    return with_sampling({**base, "run": run, "datasets": free}, settings=settings, **changes)


def test_the_verb_starts_from_the_law_of_the_data(checkpoint, prepared, tiny_config, tmp_path):
    spec = config.sampling_spec(
        only(tiny_config, "oscillation", settings=SETTINGS, teleport=1.5), "checkerboard", "oscillation"
    )
    sample(spec, checkpoint, prepared / "checkerboard", 0, tmp_path, "cpu")
    found = {name: np.load(tmp_path / f"{name}-nfe3.npy") for name in SETTINGS}
    dataset, generator = data.load(prepared / "checkerboard"), load(checkpoint)
    rows, _ = dataset.batch(np.arange(dataset.count))
    generator.teleport = Teleport.of(rows, 1.5)
    how = {key: spec[key] for key in ("grid", "rho", "sigma_min", "sigma_max", "batch")}
    generator.sampling = type(generator.sampling)(**how)
    expected, spent = generator.sample(range(spec["n_samples"]), "teleported_multistep", 3)
    assert spent == 3
    torch.testing.assert_close(torch.from_numpy(found["teleported_multistep"]), expected.float())
    assert not np.array_equal(found["multistep"], found["teleported_multistep"])


def test_the_noise_level_is_part_of_a_sampling_only_where_it_is_used(tiny_config):
    plain = config.sampling_spec(only(tiny_config, "edm", settings={"heun": [5]}), "checkerboard", "edm")
    unused = config.sampling_spec(only(tiny_config, "edm", settings={"heun": [5]}, teleport=2.0), "checkerboard", "edm")
    used = config.sampling_spec(only(tiny_config, "edm", settings=SETTINGS, teleport=2.0), "checkerboard", "edm")
    assert plain == unused
    assert used["teleport"] == 2.0


@pytest.mark.parametrize(
    ("method", "settings", "changes", "told"),
    [
        ("edm", {"teleported_heun": [5]}, {}, "`sampling.teleport` does not say"),
        ("edm", {"teleported_heun": [4]}, {"teleport": 2.0}, "use 3 or 5"),
        ("edm", {"teleported_heunn": [5]}, {"teleport": 2.0}, "'teleported_heunn'.*'heun'"),
        ("edm", {"teleported_heun": [5]}, {"teleport": -1.0}, "teleport"),
        ("reflection", {"teleported_heun": [5]}, {"teleport": 2.0}, "flow 'reflection' has no normal noise"),
        ("pfgm", {"teleported_heun": [5]}, {"teleport": 2.0}, "flow 'pfgm' has no normal noise"),
    ],
)
def test_what_cannot_be_is_refused_while_the_parameters_are_read(tiny_config, method, settings, changes, told):
    with pytest.raises(ConfigurationError, match=f"(?s){told}"):
        only(tiny_config, method, settings=settings, **changes)
