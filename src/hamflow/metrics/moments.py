"""Mean and covariance of features that arrive batch by batch."""

import numpy as np


class Moments:
    """Float64 running mean and centred second moment, merged batch by batch (Chan, Golub, LeVeque 1983).

    Args:
        dimension: d, of a feature vector.
    """

    def __init__(self, dimension: int):
        self.n = 0
        self.mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))  # sum of (x - mean)(x - mean)'

    def add(self, features) -> None:
        """Take in rows, [n, d]."""
        features = np.asarray(features, dtype=np.float64)
        n, total = len(features), self.n + len(features)
        if not n:
            return
        mean = features.mean(0)
        centred, step = features - mean, mean - self.mean
        self._scatter += centred.T @ centred + np.outer(step, step) * (self.n * n / total)
        self.mean = self.mean + step * (n / total)
        self.n = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, [d, d]. Raises ValueError with fewer than two rows."""
        if self.n < 2:
            raise ValueError("a covariance needs at least two rows")
        return self._scatter / (self.n - 1)


def moments_of(features) -> Moments:
    """The moments of one matrix, [n, d]."""
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments
