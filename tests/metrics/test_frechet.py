"""The Fréchet distance against closed forms and independent formulas."""

import numpy as np
import pytest
import scipy.linalg

from hamflow.metrics import frechet_distance, frechet_distance_of

D = 6


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def random_law(rng, rank=D):
    root = rng.standard_normal((D, rank))
    return rng.standard_normal(D), root @ root.T


def by_matrix_root(mean_a, cov_a, mean_b, cov_b):
    """The definition, with the matrix square root."""
    cross = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * cross)


def test_equals_the_definition(rng):
    a, b = random_law(rng), random_law(rng)
    assert frechet_distance(*a, *b) == pytest.approx(by_matrix_root(*a, *b), rel=1e-10)


def test_commuting_covariances_have_a_closed_form(rng):
    basis, _ = np.linalg.qr(rng.standard_normal((D, D)))
    (mean_a, mean_b), (eigen_a, eigen_b) = rng.standard_normal((2, D)), rng.uniform(0.1, 3, (2, D))
    cov_a, cov_b = ((basis * eigen) @ basis.T for eigen in (eigen_a, eigen_b))
    exact = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(eigen_a) - np.sqrt(eigen_b)) ** 2)
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(exact, rel=1e-10)


def test_on_the_line_it_is_the_distance_of_mean_and_deviation():
    assert frechet_distance([1.0], [[4.0]], [4.0], [[9.0]]) == pytest.approx(3**2 + 1**2)


def test_is_symmetric_and_vanishes_on_the_diagonal(rng):
    a, b = random_law(rng), random_law(rng)
    assert frechet_distance(*a, *b) == pytest.approx(frechet_distance(*b, *a), rel=1e-10)
    assert frechet_distance(*a, *a) == pytest.approx(0, abs=1e-10 * np.trace(a[1]))


@pytest.mark.parametrize(("rank_a", "rank_b"), [(2, D), (D, 2), (3, 2), (0, D)])
def test_singular_covariances(rng, rank_a, rank_b):
    a, b = random_law(rng, rank_a), random_law(rng, rank_b)
    regular = [(mean, cov + 1e-13 * np.eye(D)) for mean, cov in (a, b)]
    assert frechet_distance(*a, *b) == pytest.approx(by_matrix_root(*regular[0], *regular[1]), rel=1e-4)


def test_is_invariant_under_rotation_and_shift(rng):
    (mean_a, cov_a), (mean_b, cov_b) = random_law(rng), random_law(rng)
    turn, _ = np.linalg.qr(rng.standard_normal((D, D)))
    shift = rng.standard_normal(D)
    moved = (turn @ mean_a + shift, turn @ cov_a @ turn.T, turn @ mean_b + shift, turn @ cov_b @ turn.T)
    assert frechet_distance(*moved) == pytest.approx(frechet_distance(mean_a, cov_a, mean_b, cov_b), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 40), (40, 5), (19, 20), (40, 50)])
def test_few_rows_and_many_rows_agree(rng, n, m):
    d = 20
    a, b = rng.standard_normal((n, d)), 0.5 + 2 * rng.standard_normal((m, d))
    direct = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_distance_of(a, b) == pytest.approx(direct, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_agrees_with_clean_fid(rng, cleanfid):
    a, b = random_law(rng), random_law(rng)
    assert frechet_distance(*a, *b) == pytest.approx(cleanfid.frechet_distance(*a, *b), rel=1e-8)


def test_what_is_no_law_is_refused():
    with pytest.raises(ValueError, match="disagree"):
        frechet_distance([0.0], [[1.0]], [0.0, 0.0], np.eye(2))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance([np.nan], [[1.0]], [0.0], [[1.0]])
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance_of(np.zeros((1, 3)), np.zeros((5, 3)))
