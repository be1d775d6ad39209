"""Fidelity, diversity and memorisation by exact nearest neighbours, in chunks: no n x n matrix is held."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CHUNK = 1024  # rows whose distances to all others are in memory at a time


class Nearest(NamedTuple):
    """Of each row the nearest one of another set: its distance, feature units, and its place. Both [n]."""

    distance: np.ndarray
    place: np.ndarray


def radii(rows, k: int) -> np.ndarray:
    """The distance of each row, [n, d], to its k-th nearest other row, feature units, [n].

    Raises:
        ValueError: k < 1, or no more than k rows.
    """
    rows = np.asarray(rows, dtype=np.float64)
    _check(k, len(rows))
    found = np.empty(len(rows))
    for start, squares in _squares(rows, rows):
        np.put_along_axis(squares, np.arange(start, start + len(squares))[:, None], -1.0, 1)  # the row itself comes first
        found[start : start + len(squares)] = np.sqrt(np.partition(squares, k, axis=1)[:, k])
    return found


def precision_recall(samples, real, k: int = 3) -> tuple[float, float]:
    """(share of the samples within the k-th nearest neighbour's distance of a real row, and the same the other way round).

    Args:
        samples, real: [n, d], [m, d], more than k rows each.
    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1 and 2.
    """
    return _covered(samples, real, radii(real, k)), _covered(real, samples, radii(samples, k))


def density_coverage(samples, real, k: int = 5) -> tuple[float, float]:
    """(mean number of real rows within whose k-th neighbour's distance a sample lies, over k; share of the real rows that have
    a sample there). For equal laws the density is 1, and the coverage 1 - 2^-k for many rows.

    Args:
        samples, real: [n, d], [m, d], more than k real rows.
    Source: Naeem et al. 2020 (arXiv:2002.09797), eq. 3 to 5.
    """
    samples, real = (np.asarray(x, dtype=np.float64) for x in (samples, real))
    limits = np.square(radii(real, k))
    inside, reached = 0, np.zeros(len(real), dtype=bool)
    for _, squares in _squares(samples, real):
        within = squares <= limits
        inside += int(within.sum())
        reached |= within.any(0)
    return inside / (k * len(samples)), float(reached.mean())


def nearest(rows, others=None) -> Nearest:
    """The nearest of `others`, [m, d], of each row, [n, d]; None: of the other rows."""
    rows = np.asarray(rows, dtype=np.float64)
    targets = rows if others is None else np.asarray(others, dtype=np.float64)
    found = Nearest(np.empty(len(rows)), np.empty(len(rows), dtype=np.int64))
    for start, squares in _squares(rows, targets):
        stop = start + len(squares)
        if others is None:
            np.put_along_axis(squares, np.arange(start, stop)[:, None], np.inf, 1)
        found.place[start:stop] = squares.argmin(1)
    for start in range(0, len(rows), CHUNK):  # the difference itself: a copy has the distance zero, up to no rounding
        part = slice(start, start + CHUNK)
        found.distance[part] = np.linalg.norm(rows[part] - targets[found.place[part]], axis=1)
    return found


def memorised(distances, fresh, level: float = 0.01) -> float:
    """Share of the samples that are nearer to a training row than all but `level` of fresh data are.

    Args:
        distances: of the samples to their nearest training rows, [n]. fresh: of data that were not trained on, [m].
    Returns: `level`, in expectation, for samples that are fresh data themselves; 1 for copies.
    """
    return float((np.asarray(distances) < np.quantile(fresh, level)).mean())


def _covered(rows, others, limits: np.ndarray) -> float:
    """Share of the rows that lie within the limit of one of the others."""
    rows, others = (np.asarray(x, dtype=np.float64) for x in (rows, others))
    return float(np.mean([hit for _, squares in _squares(rows, others) for hit in (squares <= np.square(limits)).any(1)]))


def _squares(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(start, squared distances [chunk, m]) of the rows, part by part, by a product of matrices: several times as fast."""
    centre = others.mean(0)  # distances are small against lengths: about the centre the rounding is least
    a, b = rows - centre, others - centre
    lengths = np.square(b).sum(1)
    for start in range(0, len(a), CHUNK):
        part = a[start : start + CHUNK]
        squares = part @ b.T
        squares *= -2
        squares += np.square(part).sum(1)[:, None]
        squares += lengths
        yield start, np.maximum(squares, 0, out=squares)


def _check(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise ValueError(f"the k-th nearest other row needs 1 <= k < {n}, the number of rows; got k = {k}")
