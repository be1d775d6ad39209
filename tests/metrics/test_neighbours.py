"""Fidelity, diversity and memorisation: closed forms, definitions row by row, and two public libraries.

Oracles where they are installed: prdc 0.2 and torch-fidelity 0.4.0 (`pip install --no-deps prdc torch-fidelity`).
"""

import numpy as np
import pytest
import torch

from hamflow.metrics import density_coverage, memorised, nearest, neighbours, precision_recall, radii


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=[7, neighbours.CHUNK])
def chunk(request, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", request.param)


def pair(rng, n=90, m=70, d=4):
    return rng.standard_normal((n, d)) + 100, 0.8 * rng.standard_normal((m, d)) + 100.3


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def test_radii_are_those_of_the_sorted_distances(rng, chunk):
    a, _ = pair(rng)
    np.testing.assert_allclose(radii(a, 3), np.sort(distances(a, a), axis=1)[:, 3], rtol=1e-9)


def test_equals_the_definitions_row_by_row(rng, chunk):
    a, b = pair(rng)
    cross = distances(a, b)
    ball_a, ball_b = (np.sort(distances(x, x), axis=1)[:, 3] for x in (a, b))
    assert precision_recall(a, b, 3) == ((cross <= ball_b).any(1).mean(), (ball_a >= cross.T).any(1).mean())
    density, coverage = density_coverage(a, b, 3)
    assert density == pytest.approx((cross <= ball_b).sum() / (3 * len(a)), rel=1e-12)
    assert coverage == pytest.approx((cross.min(0) <= ball_b).mean(), rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_agrees_with_prdc(rng, k):
    prdc = pytest.importorskip("prdc")
    a, b = pair(rng)
    theirs = prdc.compute_prdc(real_features=b, fake_features=a, nearest_k=k)
    ours = (*precision_recall(a, b, k), *density_coverage(a, b, k))
    np.testing.assert_allclose(ours, [theirs[key] for key in ("precision", "recall", "density", "coverage")], rtol=1e-12)


def test_agrees_with_torch_fidelity(rng, cleanfid):
    """The fixture declares the operators that torchvision lacks beside a CPU build of torch, on which the library depends."""
    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    a, b = pair(rng)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 50, "save_cpu_ram": False, "verbose": False}
    found = theirs.prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **settings)
    np.testing.assert_allclose(precision_recall(a, b, 3), [found["precision"], found["recall"]], rtol=1e-6)


def test_equal_laws_have_density_one_and_the_coverage_of_the_closed_form(rng):
    """The k nearest of the others of a row are all of its own set with probability 2^-k: no sample is in its ball then."""
    a, b = rng.standard_normal((2, 1500, 2))
    k = 5
    covered = 1 - 2.0**-k
    density, coverage = density_coverage(a, b, k)
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(covered, abs=4 * (covered * (1 - covered) / len(b)) ** 0.5)


def test_what_is_far_away_is_neither_precise_nor_covers(rng):
    a, b = pair(rng)
    assert precision_recall(a + 100, b) == (0, 0)
    assert density_coverage(a + 100, b) == (0, 0)
    assert precision_recall(b, b) == (1, 1)


def test_one_mode_of_two_is_precise_and_recalls_half(rng):
    b = np.concatenate([rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) + 50])
    precision, recall = precision_recall(rng.standard_normal((200, 3)), b)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_the_nearest_row_and_its_distance(rng, chunk):
    a, b = pair(rng)
    found, cross = nearest(a, b), distances(a, b)
    assert np.array_equal(found.place, cross.argmin(1))
    np.testing.assert_allclose(found.distance, cross.min(1), rtol=1e-12)
    alone = distances(a, a) + np.diag(np.full(len(a), np.inf))
    assert np.array_equal(nearest(a).place, alone.argmin(1))


def test_copies_are_found_and_fresh_data_are_not_copies(rng):
    """The share is that of the copies; of fresh data it is the level, with its binomial deviation."""
    train, held_out, fresh = (rng.standard_normal((n, 8)).astype(np.float32) for n in (800, 2000, 2000))
    limits = nearest(held_out, train).distance
    copied = fresh.copy()
    copied[:300] = train[:300]
    assert memorised(nearest(copied, train).distance, limits) == pytest.approx(0.15 + 0.85 * 0.01, abs=0.015)
    share = memorised(nearest(fresh, train).distance, limits, level=0.05)
    assert share == pytest.approx(0.05, abs=4 * (2 * 0.05 * 0.95 / 2000) ** 0.5)
    assert nearest(copied, train).distance[:300].max() == 0


def test_training_images_against_each_other_stand_in_for_held_out_ones(rng):
    """The distance of a row to the n - 1 others has the law of a fresh row's distance to n - 1 rows."""
    train, fresh = rng.standard_normal((2, 1500, 5))
    share = memorised(nearest(fresh, train).distance, nearest(train).distance, level=0.1)
    assert share == pytest.approx(0.1, abs=4 * (2 * 0.1 * 0.9 / 1500) ** 0.5)


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_rows_are_refused(k):
    with pytest.raises(ValueError, match="1 <= k < 5"):
        radii(np.zeros((5, 2)), k)
