"""Distances between sets of points in a few dimensions, and samples judged by the exact law."""

from collections.abc import Mapping

import numpy as np
import torch

from hamflow import draws
from hamflow.data import Density

EXACT_LIMIT = 4000  # points: the exact assignment costs n^3 in the worst case, 5 s here
PROJECTIONS = 256


def w2(a, b) -> float:
    """Exact Wasserstein-2 distance of two equally large sets, by the best assignment, data units.

    Args:
        a, b: points, [n, D].
    Raises:
        ValueError: sets of unequal size.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.shape != b.shape:
        raise ValueError(f"sets of equal size are needed, got {a.shape} and {b.shape}")
    cost = cdist(a, b, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def sliced_w2(a, b, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Root mean square over random directions of the 1-D Wasserstein-2 distance, data units.

    Over all directions it is at most `w2` / sqrt(D): another quantity, and so another name.

    Args:
        a, b: points, [n, D].
        projections: directions, drawn uniformly from `seed`.
    Raises:
        ValueError: sets of unequal size.
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.shape != b.shape:
        raise ValueError(f"sets of equal size are needed, got {a.shape} and {b.shape}")
    directions = draws.generator(seed, "projections").standard_normal((projections, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    squares = [np.square(np.sort(a @ u) - np.sort(b @ u)).mean() for u in directions]
    return float(np.sqrt(np.mean(squares)))


def support_fraction(samples, density: Density) -> float:
    """Fraction of the points, [n, D], where the density is positive."""
    return float(density.support(_tensor(samples)).double().mean())


def negative_log_likelihood(samples, density: Density) -> Mapping[str, float] | None:
    """Mean of -log p over the samples where p > 0, nats, and their fraction; None where there are none.

    Its floor is no bound: samples that crowd at the modes fall below the law's entropy. Read it beside `w2`.
    """
    values = -density.log_prob(_tensor(samples))
    finite = values[values.isfinite()]
    if not len(finite):
        return None
    return {"value": float(finite.mean()), "finite_fraction": len(finite) / len(values)}


def _tensor(samples) -> torch.Tensor:
    return torch.from_numpy(np.array(samples, dtype=np.float64))
