"""Is one method better than another? A bootstrap of the Fréchet distance in which sample i of both is drawn together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hamflow import draws
from hamflow.metrics.frechet import root, sum_of_roots

RESAMPLES = 200
LEVEL = 0.9


class Resampled(NamedTuple):
    """A distance, and what it is of each resample of the samples, [B]. Resample b has the same places for every method."""

    value: float
    draws: np.ndarray


class Interval(NamedTuple):
    """A difference with its confidence interval."""

    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether it excludes zero: only then one is called better."""
        return self.low > 0 or self.high < 0


def resampled_frechet(features, mean, covariance, resamples: int = RESAMPLES, seed: int = 0) -> Resampled:
    """The Fréchet distance of features to a Gaussian, and of `resamples` draws of n of their rows with replacement.

    The draws are a function of n and the seed: those of two methods with the same sampling seeds are pairs.

    Args:
        features: [n, d], row i of sampling seed i. mean, covariance: of the reference, [d], [d, d].
    Raises:
        ValueError: fewer than two rows; shapes that disagree.
    """
    features, mean, covariance = (np.asarray(x, dtype=np.float64) for x in (features, mean, covariance))
    n, d = features.shape
    if n < 2 or mean.shape != (d,) or covariance.shape != (d, d):
        raise ValueError(f"features {features.shape} do not fit mean {mean.shape} and covariance {covariance.shape}")
    centred = features - mean
    # With S = L L' of the reference, the eigenvalues of S_a S are those of L' S_a L: the covariance of the rows times L.
    rows, squares = centred @ root(covariance), np.square(centred).sum(1)
    if n < d:  # they span n dimensions at most, and the other eigenvalues are zero
        rows = rows @ np.linalg.svd(rows, full_matrices=False)[2].T

    def distance(weights: np.ndarray) -> float:
        """Of rows that are counted so many times, n in all."""
        shift, middle = weights @ centred / n, weights @ rows / n
        second = (weights[:, None] * rows).T @ rows - n * np.outer(middle, middle)
        trace = (weights @ squares - n * shift @ shift) / (n - 1) + np.trace(covariance)
        return float(shift @ shift + trace - 2 * sum_of_roots(np.linalg.eigvalsh(second / (n - 1))))

    rng = draws.generator(seed, "bootstrap", n)
    counts = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples))
    return Resampled(distance(np.ones(n)), np.array([distance(count.astype(np.float64)) for count in counts]))


def interval(a: Sequence[Resampled], b: Sequence[Resampled], level: float = LEVEL, seed: int = 0) -> Interval:
    """Confidence interval of the difference a - b of the mean distances over training seeds, a list item each.

    The basic bootstrap: the deviation of the resamples from the value stands for that of the value from the truth, so that what
    a finite number of samples adds to the distance is removed to first order. Where there are several training seeds, these
    are drawn with replacement, too; a few of them give an interval that is too narrow.

    Raises:
        ValueError: lists or resamples of different lengths, which are no pairs.
    Source: Davison and Hinkley 1997, section 5.2.1.
    """
    if len({len(a), len(b)}) > 1 or len({len(one.draws) for one in (*a, *b)}) != 1:
        raise ValueError("paired resamples of as many training seeds are needed")
    values = np.array([x.value - y.value for x, y in zip(a, b, strict=True)])
    drawn = np.array([x.draws - y.draws for x, y in zip(a, b, strict=True)])
    seeds, resamples = drawn.shape
    picked = draws.generator(seed, "bootstrap", "training seeds", seeds).integers(seeds, size=(seeds, resamples))
    means = drawn[picked, np.arange(resamples)].mean(0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    difference = float(values.mean())
    return Interval(difference, float(2 * difference - high), float(2 * difference - low))


def frechet_difference(a, b, mean, covariance, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The Fréchet distance of features a less that of b, [n, d] each of the same sampling seeds, with its interval.

    Raises:
        ValueError: different numbers of rows, which are no pairs.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs are needed, got {len(a)} and {len(b)} rows")
    one, other = (resampled_frechet(x, mean, covariance, resamples, seed) for x in (a, b))
    return interval([one], [other], level, seed)
