"""`hamflow average`: snapshots of a training, and checkpoints of another average made of them."""

import copy

import pytest
import torch

from hamflow import cli, config, methods
from hamflow.errors import ConfigurationError
from hamflow.files import load_metadata, load_tensors
from hamflow.pipeline.paths import SNAPSHOTS
from hamflow.verbs._training import train
from hamflow.verbs.average import average

LENGTHS = (0.05, 0.1)


def spec_of(tiny_config, **training):
    spec = copy.deepcopy(config.training_spec(tiny_config, "checkerboard", "edm"))
    spec["training"] |= {"train_kimg": 4.096, "batch": 256, "report_kimg": 1.024} | training
    return spec


@pytest.fixture(scope="module")
def trained(prepared, tiny_config, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    spec = spec_of(tiny_config, snapshots={"kimg": 0.512, "lengths": list(LENGTHS)})
    return train(spec, prepared / "checkerboard", 0, output, "cpu")


def test_a_length_that_was_kept_comes_back(trained, tmp_path):
    last = sorted((trained.parent / SNAPSHOTS).glob("*"))[-1]
    snapshot, facts = load_tensors(last)
    assert facts["step"] == 16
    for number, length in enumerate(LENGTHS):
        made, error = average(trained, length, output=tmp_path / "average.safetensors")
        assert error < 1e-5
        for name, tensor in load_tensors(made)[0].items():
            torch.testing.assert_close(tensor, snapshot[f"power.{number}.{name}"], rtol=0, atol=1e-5)


def test_the_new_checkpoint_is_one(trained, capsys):
    """Another verb takes it: it samples, and says of itself what it is."""
    assert cli.main(["average", "x/checkerboard/edm/seed0", "--checkpoint", str(trained), "--length", "0.15"]) == 0
    made = trained.with_name("average-0.15.safetensors")
    assert str(made) in capsys.readouterr().out
    assert load_metadata(made)["average"].keys() == {"length", "kimg", "error"}
    samples, _ = methods.load(made).sample(range(3), "heun", 5)
    published, _ = methods.load(trained).sample(range(3), "heun", 5)
    assert bool(samples.isfinite().all())
    assert not torch.equal(samples, published)


def test_snapshots_change_no_bit_of_what_is_published(trained, prepared, tiny_config, tmp_path):
    plain = train(spec_of(tiny_config), prepared / "checkerboard", 0, tmp_path, "cpu")
    expected, found = load_tensors(plain)[0], load_tensors(trained)[0]
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert not (tmp_path / SNAPSHOTS).exists()


def test_what_cannot_be_is_refused(trained, tmp_path):
    with pytest.raises(ConfigurationError, match="0.289"):
        average(trained, 0.5)
    with pytest.raises(ConfigurationError, match="--kimg 100"):
        average(trained, 0.1, kimg=100)
    with pytest.raises(ConfigurationError, match="the checkpoint itself"):
        average(trained, 0.1, output=trained)
    alone = tmp_path / "model.safetensors"
    alone.write_bytes(trained.read_bytes())
    with pytest.raises(ConfigurationError, match="no snapshots"):
        average(alone, 0.1)
