"""Training and held-out part: every class in both, enough rows in each, and labels of samples as in the training part."""

import numpy as np
import pytest

from hamflow import data
from hamflow.data.sources import _SOURCES, Source
from hamflow.errors import DataError
from hamflow.metrics.reference import load
from hamflow.metrics.suite import Comparison, measure
from hamflow.pipeline import records
from hamflow.verbs.evaluate import build_reference


def spec_of(source: str, **options) -> dict:
    return {"name": source, "source": source, "options": options}


def labelled(monkeypatch, sizes):
    """A source `shades` with so many rows of each class; the grey of a row is its number."""
    data.names()  # all of them are there before they are copied
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    grey = np.arange(len(labels)).astype(np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"n{index}" for index in range(len(sizes)))

    @data.sources.register("shades")
    def shades() -> Source:
        return Source("image", lambda: (grey, labels), (-1.0, 1.0), licence="-", origin="-", class_names=lambda: names)


@pytest.mark.parametrize("sizes", [[95, 5], [60, 1, 7, 30], [3] * 30, [200, 2, 2, 2, 2]])
@pytest.mark.parametrize("holdout", [0.1, 0.3, 0.5])
def test_every_class_has_its_share_in_both_parts(tmp_path, monkeypatch, sizes, holdout):
    labelled(monkeypatch, sizes)
    manifest = data.prepare(spec_of("shades", holdout=holdout), tmp_path)
    train, test = np.array(manifest["class_counts"]["train"]), np.array(manifest["class_counts"]["test"])
    assert (train + test).tolist() == sizes
    assert (train > 0).all()
    assert test.sum() == manifest["split"]["test"] == round(holdout * sum(sizes))
    assert (np.abs(test - holdout * np.array(sizes)) <= 1).all()


@pytest.mark.parametrize("sizes", [[570, 30], [1, 1, 98], [7] * 10, [1000, 100, 10, 1]])
def test_labels_of_samples_are_those_of_the_training_part(tmp_path, monkeypatch, sizes):
    """In proportion, over any seeds in a row; by the seed alone."""
    labelled(monkeypatch, sizes)
    data.prepare(spec_of("shades"), tmp_path)
    dataset = data.load(tmp_path)
    for first, count in ((0, 10), (0, 300), (1_000_000, 777), (37_000_000, 5000)):
        labels = dataset.draw_labels(range(first, first + count))
        expected = count * np.array(sizes) / sum(sizes)
        assert (np.abs(np.bincount(labels, minlength=len(sizes)) - expected) < 4).all()
        assert np.array_equal(dataset.draw_labels(range(first + count // 2, first + count)), labels[count // 2 :])
    assert labels.dtype == np.int64


def test_no_sample_has_a_class_that_the_part_lacks(tmp_path, monkeypatch):
    labelled(monkeypatch, [5, 1, 1, 5])
    data.prepare(spec_of("shades", holdout=0.3), tmp_path)
    test = data.load(tmp_path).test()
    assert set(test.draw_labels(range(1000))) == set(test.labels) == {0, 3}


def test_data_without_classes_have_no_labels_to_draw(tmp_path):
    data.prepare(spec_of("rings", count=300), tmp_path)
    assert data.load(tmp_path).draw_labels(range(3)) is None


@pytest.fixture
def few(monkeypatch):
    """A source `few` of so many images."""

    def make(count):
        grey = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        data.sources.register("few")(lambda: Source("image", lambda: (grey, None), (-1.0, 1.0), licence="-", origin="-"))

    data.names()  # all of them are there before they are copied
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    return make


@pytest.mark.parametrize(("count", "holdout"), [(1, 0), (10, 0.01), (3, 0.67)])
def test_a_part_without_rows_is_refused_before_anything_is_trained(tmp_path, few, count, holdout):
    few(count)
    with pytest.raises(DataError, match="for training and . held out"):
        data.prepare(spec_of("few", holdout=holdout), tmp_path / "few")
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize(("count", "holdout"), [(2, 0), (3, 0), (10, 0.1), (4, 0), (10, 0.2)])
def test_too_few_images_for_a_bound_have_none_and_samples_are_still_measured(tmp_path, few, capsys, count, holdout):
    few(count)
    bound = count == 4 or holdout == 0.2
    data.prepare(spec_of("few", holdout=holdout), tmp_path / "few")
    assert ("there will be no bound" in capsys.readouterr().out) == (not bound)
    identity = {"preset": "x", "dataset_label": "x", "conditional": False, "method": "data", "label": "x"}
    spec = {**identity, "dataset": "few", "features": "efficientnet_lite0", "batch": 8, "n_samples": 4}
    build_reference(spec, tmp_path / "few", tmp_path / "few.npz", tmp_path / "few" / "data" / "seed0")
    metrics = records.read(tmp_path / "few" / "data" / "seed0" / "real-nfe0.json").metrics
    assert {metric.value is not None for metric in metrics.values()} == {bound}
    rows = load(tmp_path / "few.npz")
    measured = measure(Comparison("image", "e", "e", rows.rows, rows))
    assert all(np.isfinite(row["value"]) for row in measured.values())
