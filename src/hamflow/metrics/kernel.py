"""Unbiased squared maximum mean discrepancies (Gretton et al. 2012, eq. 3), over all pairs: deterministic."""

from collections.abc import Callable

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
TILE = 2048  # rows at a time: bounds the memory, changes the result by rounding only
LENGTHS = (2.0, 1.0, 0.5, 0.25)  # data units, each half of the one before, down to the width of a ring


def squared_mmd(a, b, kernel: Kernel) -> float:
    """mean over i != j of k(a_i, a_j) + the same of b - 2 mean k(a_i, b_j); unbiased, so it may be negative.

    Args:
        a, b: samples of two laws, [n, d] and [m, d], n and m at least 2.
        kernel: k([p, d], [q, d]) -> [p, q].
    Raises:
        ValueError: fewer than two rows.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError("an unbiased estimate needs at least two rows a side")
    within = (_total(a, a, kernel) - _diagonal(a, kernel)) / (n * (n - 1))
    within += (_total(b, b, kernel) - _diagonal(b, kernel)) / (m * (m - 1))
    return float(within - 2 * _total(a, b, kernel) / (n * m))


def squared_mmd_error(a, b, kernel: Kernel) -> float:
    """Standard error of `squared_mmd`, which holds for equal laws too.

    The influence of a row is twice its mean kernel with its own set less its mean kernel with the other. Their variance counts
    the noise of each pair in both of its members: half of what the doubly centred kernels add is subtracted (theory 7.2).

    Args: as of `squared_mmd`, n and m at least 4.
    Raises:
        ValueError: fewer than four rows.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    n, m = len(a), len(b)
    if min(n, m) < 4:
        raise ValueError("a standard error needs at least four rows a side")
    across, squares = _sums(a, b, kernel)
    down, _ = _sums(b, a, kernel)
    noise = 4 * (squares - m * np.square(across / m).sum() - n * np.square(down / n).sum() + across.sum() ** 2 / (n * m))
    noise /= (n * m) ** 2
    variance = 0.0
    for rows, other, size in ((a, across / m, n), (b, down / n, m)):
        sums, total = _sums(rows, rows, kernel, diagonal=False)
        means = sums / (size - 1)
        pairs = total - 2 * (size - 1) * np.square(means).sum() + size * (size - 1) * means.mean() ** 2
        noise += 2 * pairs / (size * (size - 1)) ** 2
        variance += 4 * (means - other).var(ddof=1) / size
    return float(np.sqrt(max(variance - noise, variance / 2)))


def kernel_distance_error(a, b) -> float:
    """Standard error of `kernel_distance`."""
    return squared_mmd_error(a, b, cubic)


def kernel_distance(a, b) -> float:
    """The kernel distance, "KID", of Binkowski et al. 2018: their kernel (x . y / d + 1)^3, all pairs."""
    return squared_mmd(a, b, cubic)


def mmd(a, b) -> float:
    """`squared_mmd` with the mean of Gaussian kernels exp(-|x - y|^2 / (2 l^2)), l in `LENGTHS`."""
    return squared_mmd(a, b, gaussian)


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / d + 1)^3, [p, d], [q, d] -> [p, q]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean over `LENGTHS` of exp(-|x - y|^2 / (2 l^2)), [p, d], [q, d] -> [p, q]."""
    from scipy.spatial.distance import cdist

    value = np.exp(cdist(x, y, "sqeuclidean") / (-2 * LENGTHS[0] ** 2))
    total = value.copy()
    for _ in LENGTHS[1:]:
        value = np.square(np.square(value))  # half the length is the fourth power: three exponentials fewer
        total += value
    return total / len(LENGTHS)


def _total(a: np.ndarray, b: np.ndarray, kernel: Kernel) -> float:
    return sum(float(kernel(x, y).sum()) for x in _tiles(a) for y in _tiles(b))


def _sums(a: np.ndarray, b: np.ndarray, kernel: Kernel, diagonal: bool = True) -> tuple[np.ndarray, float]:
    """(sum over j of k(a_i, b_j), [n]; sum of all squares); without i = j if not `diagonal`, where the sets are one."""
    sums, squares = np.zeros(len(a)), 0.0
    for i in range(0, len(a), TILE):
        for j in range(0, len(b), TILE):
            values = kernel(a[i : i + TILE], b[j : j + TILE])
            if i == j and not diagonal:
                np.fill_diagonal(values, 0.0)
            sums[i : i + TILE] += values.sum(1)
            squares += float(np.square(values).sum())
    return sums, squares


def _diagonal(a: np.ndarray, kernel: Kernel) -> float:
    """sum_i k(a_i, a_i)."""
    return sum(float(kernel(x, x).trace()) for x in _tiles(a))


def _tiles(a: np.ndarray) -> list[np.ndarray]:
    return [a[i : i + TILE] for i in range(0, len(a), TILE)]
