"""Distances of point sets against shifts, the line, and brute force."""

import itertools
import math

import numpy as np
import pytest

from hamflow import data
from hamflow.metrics import negative_log_likelihood, sliced_w2, support_fraction, w2


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_w2_of_a_translated_set_is_the_shift(rng):
    a, shift = rng.standard_normal((200, 3)), np.array([3.0, -4.0, 12.0])
    assert w2(a, rng.permutation(a + shift)) == pytest.approx(13, rel=1e-12)


def test_w2_of_a_set_to_itself_is_zero(rng):
    a = rng.standard_normal((200, 2))
    assert w2(a, rng.permutation(a)) == 0


@pytest.mark.parametrize("distance", [w2, sliced_w2])
def test_on_the_line_the_best_assignment_is_sorted(rng, distance):
    a, b = rng.standard_normal((100, 1)), rng.exponential(size=(100, 1))
    exact = np.sqrt(np.mean((np.sort(a, 0) - np.sort(b, 0)) ** 2))
    assert distance(a, b) == pytest.approx(exact, rel=1e-12)


def test_w2_is_the_minimum_over_all_assignments(rng):
    a, b = rng.standard_normal((2, 6, 2))
    best = min(np.sum((a - b[list(order)]) ** 2, 1).mean() for order in itertools.permutations(range(6)))
    assert w2(a, b) == pytest.approx(math.sqrt(best), rel=1e-12)


def test_sliced_w2_of_a_translation_is_the_shift_over_the_root_of_the_dimension(rng):
    a, shift = rng.standard_normal((500, 2)), np.array([3.0, 4.0])
    projections = 20_000
    value = sliced_w2(a, a + shift, projections) ** 2
    standard_error = 5**2 * math.sqrt(1 / 8 / projections)  # cos^2 of a uniform angle has variance 1/8
    assert value == pytest.approx(5**2 / 2, abs=4.5 * standard_error)


def test_sliced_w2_repeats_and_follows_its_seed(rng):
    a, b = rng.standard_normal((2, 100, 2))
    assert sliced_w2(a, b) == sliced_w2(a, b)
    assert sliced_w2(a, b) != sliced_w2(a, b, seed=1)


@pytest.mark.parametrize("distance", [w2, sliced_w2])
def test_sets_of_unequal_size_are_refused(distance):
    with pytest.raises(ValueError, match="equal size"):
        distance(np.zeros((3, 2)), np.zeros((4, 2)))


def test_support_fraction_counts():
    board = data.build("checkerboard").density
    black, white, outside = [0.5, 0.5], [0.5, -0.5], [2.5, 0.5]
    assert support_fraction([black, black, white, outside], board) == 0.5


def test_nll_averages_where_the_density_is_positive():
    board = data.build("checkerboard").density
    black, white = [0.5, 0.5], [0.5, -0.5]
    assert negative_log_likelihood([black, white, black, white], board) == {
        "value": pytest.approx(math.log(8)),
        "finite_fraction": 0.5,
    }
    assert negative_log_likelihood([white], board) is None


def test_nll_of_one_gaussian():
    law = data.build("gaussian_mixture", {"means": [[1.0, 2.0]], "sds": [0.5], "weights": [1.0]}).density
    exact = math.log(2 * math.pi * 0.25) + 0.5 * (0.3**2 + 0.4**2) / 0.25
    assert negative_log_likelihood([[1.3, 2.4]], law)["value"] == pytest.approx(exact, rel=1e-12)
