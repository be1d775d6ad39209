"""Paired differences of Fréchet distances: values, pairs, and how often the interval holds the truth."""

import numpy as np
import pytest

from hamflow.metrics import Resampled, frechet_difference, frechet_distance, frechet_distance_of, interval, resampled_frechet

D, N = 3, 200
MEAN, COVARIANCE = np.array([0.5, 0.0, -0.2]), np.diag([1.0, 0.5, 2.0])
SCALE_A, SHIFT_A = np.diag([1.2, 0.8, 1.0]), np.array([0.3, 0.0, 0.0])
SCALE_B, SHIFT_B = np.diag([1.0, 0.6, 1.5]), np.array([0.0, 0.2, 0.0])


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def pair(rng, n=N):
    """Two methods on the same noise, and noise of their own."""
    noise, own = rng.standard_normal((n, D)), 0.3 * rng.standard_normal((2, n, D))
    return (noise + own[0]) @ SCALE_A + SHIFT_A, (noise + own[1]) @ SCALE_B + SHIFT_B


def truth():
    spread = 1 + 0.3**2
    of = [
        frechet_distance(shift, spread * scale @ scale.T, MEAN, COVARIANCE)
        for scale, shift in ((SCALE_A, SHIFT_A), (SCALE_B, SHIFT_B))
    ]
    return of[0] - of[1]


def test_the_value_is_the_frechet_distance_and_a_resample_is_that_of_its_rows(rng, monkeypatch):
    a, _ = pair(rng, 50)
    found = resampled_frechet(a, MEAN, COVARIANCE, 5, seed=3)
    of = lambda rows: frechet_distance(rows.mean(0), np.cov(rows.T), MEAN, COVARIANCE)  # noqa: E731
    assert found.value == pytest.approx(of(a), rel=1e-10)
    from hamflow import draws

    places = draws.generator(3, "bootstrap", 50)
    np.testing.assert_allclose(found.draws, [of(a[places.integers(50, size=50)]) for _ in range(5)], rtol=1e-10)


def test_fewer_rows_than_dimensions(rng):
    a, real = rng.standard_normal((8, 20)), 0.5 + rng.standard_normal((12, 20))
    found = resampled_frechet(a, real.mean(0), np.cov(real.T), 2)
    assert found.value == pytest.approx(frechet_distance_of(a, real), rel=1e-6)


def test_a_method_does_not_differ_from_itself_and_the_difference_is_antisymmetric(rng):
    a, b = pair(rng)
    assert frechet_difference(a, a, MEAN, COVARIANCE) == (0, 0, 0)
    assert not frechet_difference(a, a, MEAN, COVARIANCE).clear
    one, other = frechet_difference(a, b, MEAN, COVARIANCE), frechet_difference(b, a, MEAN, COVARIANCE)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), rel=1e-10)


def test_pairs_make_the_interval_narrower(rng):
    """The noise that the methods share cancels: with rows in another order, the same values have a wider interval."""
    a, b = pair(rng)
    width = lambda found: found.high - found.low  # noqa: E731
    paired = frechet_difference(a, b, MEAN, COVARIANCE)
    apart = frechet_difference(a, b[rng.permutation(N)], MEAN, COVARIANCE)
    assert paired.difference == pytest.approx(apart.difference, rel=1e-9)
    assert width(paired) < 0.7 * width(apart)


def test_intervals_hold_the_known_difference_as_often_as_they_say():
    """Of 200 pairs, 90% intervals: between 83% and 96%. More resamples than 80 change little, and take longer."""
    rng, exact = np.random.default_rng(0), truth()
    found = [frechet_difference(*pair(rng), MEAN, COVARIANCE, resamples=80, seed=k) for k in range(200)]
    assert 0.83 <= np.mean([one.low <= exact <= one.high for one in found]) <= 0.96


def test_training_seeds_are_a_level_of_the_bootstrap(rng):
    """Differences that do not vary over samples have the interval of their mean over training seeds."""
    zero = [Resampled(0.0, np.zeros(4000)) for _ in range(8)]
    values = rng.standard_normal(8)
    found = interval([Resampled(v, np.full(4000, v)) for v in values], zero)
    error = values.std() / 8**0.5  # of a mean of eight draws with replacement
    assert found.difference == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.645 * error) == pytest.approx(1, abs=0.1)


def test_what_is_no_pair_is_refused(rng):
    a, b = pair(rng)
    with pytest.raises(ValueError, match="pairs"):
        frechet_difference(a, b[1:], MEAN, COVARIANCE)
    with pytest.raises(ValueError, match="paired resamples"):
        interval([Resampled(0.0, np.zeros(3))], [Resampled(0.0, np.zeros(4))])
    with pytest.raises(ValueError, match="do not fit"):
        resampled_frechet(a, MEAN[1:], COVARIANCE)
