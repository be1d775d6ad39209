"""The figure of reconstructions: only where there is an autoencoder, twice the same bytes, the error that it names."""

import re

import numpy as np
import pytest

from hamflow import config, data, load
from hamflow.errors import CheckpointError
from hamflow.pipeline.paths import Preset
from hamflow.report import style
from hamflow.report.figures import reconstructions
from hamflow.verbs._training import train

PARAMETERS = {
    "preset": "toy",
    "seeds": [0],
    "run": {"datasets": ["digits"], "methods": ["edm", "auto"]},
    "datasets": {"digits": {"label": "Digits"}},
    "methods": {"edm": {"label": "EDM", "kind": "velocity"}, "auto": {"label": "VAE", "kind": "vae"}},
}
NAME = "reconstructions-digits"


@pytest.fixture
def there(tiny_config, tmp_path, monkeypatch):
    """A preset with a trained autoencoder."""
    monkeypatch.chdir(tmp_path)
    run = Preset("toy").run("digits", "auto", 0)
    data.prepare({"name": "digits", "source": "digits", "options": {}}, run.data)
    spec = config.training_spec(tiny_config, "digits", "edm")
    spec["training"] |= {"train_kimg": 0.064}
    train(spec | {"method": "auto", "kind": "vae", "options": {"channels": 4}}, run.data, 0, run.checkpoints, "cpu")
    return run


def test_a_preset_has_it_only_with_an_autoencoder():
    assert reconstructions.names(PARAMETERS) == [NAME]
    assert reconstructions.names(PARAMETERS | {"run": {"datasets": ["digits"], "methods": ["edm"]}}) == []


def test_it_is_drawn_twice_the_same_with_the_error_that_it_names(there, tmp_path, monkeypatch):
    titles, bare = [], style.bare

    def keep(axes):
        bare(axes)
        titles.append(axes)

    monkeypatch.setattr(style, "bare", keep)
    for folder in "ab":
        reconstructions.draw(PARAMETERS, NAME, tmp_path / folder / "figure.png")
    assert (tmp_path / "a" / "figure.png").read_bytes() == (tmp_path / "b" / "figure.png").read_bytes()
    x, _ = data.load(there.data).batch(np.arange(24))
    error = float((load(there.checkpoint).reconstruct(x) - x).square().mean().sqrt())
    assert {axes.get_title() for axes in titles} == {f"VAE: {error:.3f}"}
    assert reconstructions.inputs(PARAMETERS, NAME)["checkpoints"] == [there.checkpoint]


def test_without_the_checkpoint_there_is_no_figure(there, tmp_path):
    there.checkpoint.unlink()
    with pytest.raises(CheckpointError, match=re.escape(str(there.checkpoint))):
        reconstructions.draw(PARAMETERS, NAME, tmp_path / "figure.png")
