"""The labels of a conditional model's samples are those of its data."""

import numpy as np
import pytest

from hamflow import data
from hamflow.data.sources import _SOURCES, Source
from hamflow.methods import base
from hamflow.verbs.sample import sample

SIZES = [19, 3, 1]


@pytest.fixture
def unequal(tmp_path, monkeypatch):
    """A data set of three classes, 19 to 3 to 1."""
    data.names()
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    labels = np.repeat(np.arange(3), SIZES)
    grey = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), dtype=np.uint8)
    names = ("a", "b", "c")
    source = Source("image", lambda: (grey, labels), (-1.0, 1.0), licence="-", origin="-", class_names=lambda: names)
    data.sources.register("unequal")(lambda: source)
    data.prepare({"name": "unequal", "source": "unequal", "options": {}}, tmp_path / "data")
    return tmp_path / "data"


class Flags:
    """A generator whose samples show their class: black, grey, white."""

    classes, shape = 3, (1, 8, 8)

    def sample(self, seeds, sampler, nfe, label):
        assert len(label) == len(seeds)
        return (label.double() - 1).reshape(-1, 1, 1, 1).expand(-1, *self.shape), nfe


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("n", [1, 23, 300])
def test_samples_have_the_classes_of_the_data_in_their_proportions(unequal, tmp_path, monkeypatch, seed, n):
    monkeypatch.setattr(base, "load", lambda *_: Flags())
    monkeypatch.setattr(base, "check_belongs", lambda *_: None)
    (tmp_path / "model.safetensors").write_bytes(b"")
    spec = {"settings": [["euler", 1], ["heun", 3]], "n_samples": n, "batch": 7, "grid": "edm"}
    spec |= {"rho": 7.0, "sigma_min": 0.002, "sigma_max": 80.0}
    sample(spec, tmp_path / "model.safetensors", unequal, seed, tmp_path / "out", "cpu")
    shown = [np.load(tmp_path / "out" / f"{name}.npy")[:, 0, 0, 0] for name in ("euler-nfe1", "heun-nfe3")]
    assert np.array_equal(*shown)  # whatever the sampler, seed i has one class
    labels = np.searchsorted([0, 128, 255], shown[0])
    assert np.array_equal(labels, data.load(unequal).draw_labels(range(seed * 1_000_000, seed * 1_000_000 + n)))
    assert (np.abs(np.bincount(labels, minlength=3) - n * np.array(SIZES) / sum(SIZES)) < 2.5).all()
