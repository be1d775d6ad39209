"""The kernel distances: unbiased, and what their formula says."""

import itertools

import numpy as np
import pytest

from hamflow.metrics import kernel, kernel_distance, kernel_distance_error, mmd, squared_mmd

DISTANCES = {"kernel_distance": kernel_distance, "mmd": mmd}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def by_loops(a, b, k):
    """Gretton et al. 2012, eq. 3, term by term."""
    n, m = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_is_its_formula(rng):
    a, b = rng.standard_normal((7, 3)), 1 + rng.standard_normal((9, 3))
    assert kernel_distance(a, b) == pytest.approx(by_loops(a, b, lambda x, y: (x @ y / 3 + 1) ** 3), rel=1e-12)


def test_mmd_is_its_formula(rng):
    def k(x, y):
        return np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * length**2)) for length in (0.25, 0.5, 1, 2)])

    a, b = rng.standard_normal((7, 2)), 1 + rng.standard_normal((9, 2))
    assert mmd(a, b) == pytest.approx(by_loops(a, b, k), rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_is_unbiased(distance):
    """The mean over every pair of samples of size 2 is the distance of the laws, zero for equal ones."""
    law_p, law_q = np.array([[0.0, 0.0], [1.0, 0.5]]), np.array([[0.0, 2.0], [-1.0, 0.0], [0.5, 0.5]])

    def population(p, q):
        k = kernel.cubic if distance is kernel_distance else kernel.gaussian
        return k(p, p).mean() + k(q, q).mean() - 2 * k(p, q).mean()

    def expected(p, q):
        samples = itertools.product(itertools.product(p, repeat=2), itertools.product(q, repeat=2))
        return np.mean([distance(np.array(a), np.array(b)) for a, b in samples])

    assert expected(law_p, law_q) == pytest.approx(population(law_p, law_q), rel=1e-10)
    assert expected(law_p, law_p) == pytest.approx(0, abs=1e-12)
    assert population(law_p, law_q) > 0.01


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_tiles_do_not_matter(rng, monkeypatch, distance):
    a, b = rng.standard_normal((11, 4)), rng.standard_normal((8, 4))
    whole = distance(a, b)
    monkeypatch.setattr(kernel, "TILE", 3)
    assert distance(a, b) == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_is_symmetric(rng, distance):
    a, b = rng.standard_normal((11, 4)), 2 * rng.standard_normal((8, 4))
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-10)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_the_mean_over_draws_of_one_law_is_zero(rng, distance):
    values = np.array([distance(*rng.standard_normal((2, 20, 2))) for _ in range(400)])
    assert abs(values.mean()) <= 4.5 * values.std() / np.sqrt(len(values))


def test_one_row_has_no_unbiased_estimate():
    with pytest.raises(ValueError, match="two rows"):
        squared_mmd(np.zeros((1, 2)), np.zeros((5, 2)), kernel.cubic)


@pytest.mark.parametrize("shift", [0.0, 0.7], ids=["equal laws", "different laws"])
def test_standard_error_is_the_deviation_over_repeated_draws(shift):
    """Of 400 draws; a sample deviation of 400 normal values has a relative error of 3.5%, of heavier tails more."""
    rng = np.random.default_rng(1)
    draws = [(rng.standard_normal((30, 4)), rng.standard_normal((45, 4)) + shift) for _ in range(400)]
    values = [kernel_distance(a, b) for a, b in draws]
    errors = np.array([kernel_distance_error(a, b) for a, b in draws])
    assert np.sqrt(np.square(errors).mean()) == pytest.approx(np.std(values), rel=0.15)


def test_standard_error_does_not_depend_on_the_tiles(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((23, 3)), rng.standard_normal((31, 3)) + 0.2
    whole = kernel_distance_error(a, b)
    monkeypatch.setattr(kernel, "TILE", 7)
    assert kernel_distance_error(a, b) == pytest.approx(whole, rel=1e-10)
    with pytest.raises(ValueError, match="four rows"):
        kernel_distance_error(a[:3], b)
