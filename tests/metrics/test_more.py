"""Metrics that are measured where the parameters ask for them, and only there."""

import numpy as np
import pytest

from hamflow.metrics import nearest, suite
from hamflow.metrics.reference import load, save, summarise

ALWAYS = {"fd_x", "fd_x_relative", "kd_x"}
ADDED = {
    "kernel_error": set(),
    "paired": set(),
    "precision_recall": {"precision_x", "recall_x"},
    "density_coverage": {"density_x", "coverage_x"},
    "memorisation": {"memorised_x"},
}


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).standard_normal((3, 60, 4)).astype(np.float32)


def measured(samples, reference, *more):
    return suite.measure(suite.Comparison("image", "x", "x", samples, reference, more=frozenset(more)))


@pytest.mark.parametrize("name", ADDED)
def test_each_adds_its_rows_and_leaves_the_values_of_the_others(rows, name):
    reference = summarise(rows[1], {})
    plain, found = measured(rows[0], reference), measured(rows[0], reference, name)
    assert set(plain) == ALWAYS
    assert set(found) == ALWAYS | ADDED[name]
    assert {key: found[key]["value"] for key in ALWAYS} == {key: row["value"] for key, row in plain.items()}
    assert set(ADDED) == set(suite.optional())


def test_error_and_resamples_stand_in_the_row_of_their_distance(rows):
    found = measured(rows[0], summarise(rows[1], {}), "kernel_error", "paired")
    assert found["kd_x"]["standard_error"] > 0
    assert len(found["fd_x"]["resampled"]) == 200
    assert found["fd_x"]["value"] < np.mean(found["fd_x"]["resampled"])  # a resample has the bias of n twice


def test_the_distances_of_held_out_rows_are_kept_and_judge_the_samples(rows, tmp_path):
    """Copies of training rows are nearer than held-out rows, whose distances are read back as they were written."""
    from dataclasses import replace

    reference = replace(summarise(rows[1], {}), held_out=nearest(rows[2], rows[1]).distance)
    save(tmp_path / "reference.npz", reference)
    again = load(tmp_path / "reference.npz")
    assert np.array_equal(again.held_out, reference.held_out)
    copies = np.concatenate([rows[1][:15], rows[0][:45] + 100])
    found = measured(copies, again, "memorisation")["memorised_x"]
    assert found["value"] == 0.25
    assert found["n_fresh"] == 60
    assert [pair[:2] for pair in found["nearest"][:15]] == [[i, i] for i in range(15)]
    assert load(save_plain(tmp_path, rows)).held_out is None


def save_plain(folder, rows):
    save(folder / "plain.npz", summarise(rows[1], {}))
    return folder / "plain.npz"
