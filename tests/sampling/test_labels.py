"""The labels of a conditional model's samples are those of its data."""

import numpy as np
import pytest

from hamflow import config, data
from hamflow.data.sources import _SOURCES, Source
from hamflow.errors import ConfigurationError
from hamflow.methods import base
from hamflow.metrics import embedding
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


@pytest.mark.parametrize("first", [0, 5_000_000])
def test_classes_may_be_drawn_equally_often(unequal, first):
    labels = data.load(unequal).draw_labels(range(first, first + 300), "equal")
    assert (np.abs(np.bincount(labels, minlength=3) - 100) < 2.5).all()


def test_what_such_samples_are_compared_with_has_the_classes_equally_often(tmp_path, monkeypatch):
    """The reference's mean is the mean of the classes' means, where every class is of one grey."""
    data.names()
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    labels = np.repeat(np.arange(3), [19, 5, 3])
    grey = np.broadcast_to(np.array([0, 60, 240], np.uint8)[labels].reshape(-1, 1, 1, 1), (27, 8, 8, 1)).copy()
    source = Source("image", lambda: (grey, labels), (-1.0, 1.0), licence="-", origin="-", class_names=lambda: ("a", "b", "c"))
    data.sources.register("greys")(lambda: source)
    data.prepare({"name": "greys", "source": "greys", "options": {}}, tmp_path)
    dataset = data.load(tmp_path)

    def pixels(rows, what):
        return rows.reshape(len(rows), -1)

    for law, mean, n in (("equal", 100.0, 9), ("data", float(grey.mean()), 27)):
        rows = embedding.reference_rows({"class_law": law}, dataset, pixels)
        assert (len(rows), rows.mean()) == (n, pytest.approx(mean))
    assert len(set(dataset.equal_rows())) == 9  # none twice


def test_equal_classes_are_for_conditional_models_of_images():
    given = ["datasets.digits.class_law=equal"]
    with pytest.raises(ConfigurationError, match="not told the class"):
        config.load(["params.yaml"], given)
    loaded = config.load(["params.yaml"], [*given, "datasets.digits.conditional=true"])
    assert config.sampling_spec(loaded, "digits", "edm")["class_law"] == "equal"
    assert config.evaluation_spec(loaded, "digits", "edm")["dataset_label"].endswith("classes equally often")
    with pytest.raises(ConfigurationError, match="class_law"):
        config.load(["params.yaml"], ["datasets.digits.class_law=even"])
