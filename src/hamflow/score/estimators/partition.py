"""Unbiased estimators without training, for low dimension: the other samples of a bin, or the neighbours, give E[v | x]."""

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError
from hamflow.registry import Count
from hamflow.score.estimators.base import Estimate, estimator

HIGHEST_DIMENSION = 3


@estimator("binned", antithetic=False)
def binned(
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    rng: np.random.Generator,
    *,
    force: Force | None = None,
    bins: Count | None = None,
) -> Estimate:
    """sum_b (n_b / N) (|mean_b v|^2 - var_b v / n_b) over bins of equal count: unbiased for E|E[v | bin]|^2 (theory 3.1).

    Args:
        bins: about so many, rounded to a power of two; default sqrt(N). In 1-D intervals, in 2-D and 3-D boxes of a k-d tree.
    """
    n = x.shape[1]
    bins = round(n**0.5) if bins is None else bins
    if not 1 <= bins <= n // 2:
        raise ConfigurationError(f"`bins` must be between 1 and N/2 = {n // 2}, got {bins}")
    return _stack([_binned(*_points(x[j], v[j]), bins) for j in range(len(times))])


@estimator("neighbours", antithetic=False)
def neighbours(
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    rng: np.random.Generator,
    *,
    force: Force | None = None,
    neighbours: Count = 16,
) -> Estimate:
    """mean_i v_i . (mean of v over the nearest neighbours of x_i, itself excluded) (theory 3.2).

    Given all positions the velocities are independent, so that the products of different samples are free of noise bias.

    Args:
        neighbours: how many; more: less noise, more smoothing.
    """
    if not 1 <= neighbours < x.shape[1]:
        raise ConfigurationError(f"`neighbours` must be between 1 and N - 1 = {x.shape[1] - 1}, got {neighbours}")
    return _stack([_neighbours(*_points(x[j], v[j]), neighbours) for j in range(len(times))])


def _binned(x: np.ndarray, v: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, float]:
    n, label = len(x), equal_cells(x, bins)
    counts = np.bincount(label)
    sums = np.stack([np.bincount(label, weights=column) for column in v.T], axis=1)
    others = (sums[label] - v) / (counts[label] - 1)[:, None]  # mean velocity of the rest of the bin
    contributions = (v * others).sum(1)
    of_bin = np.bincount(label, weights=contributions) / counts
    # The linear part of a pair statistic counts each pair's product in both of its members, so that the variance of the
    # products themselves, sum_{i<j} (2 / (n_b - 1))^2 (v_i . v_j)^2 / N^2, is counted twice (theory 3.3).
    moments = np.zeros((len(counts), v.shape[1], v.shape[1]))
    np.add.at(moments, label, v[:, :, None] * v[:, None, :])
    quartic = np.bincount(label, weights=(v**2).sum(1) ** 2)
    excess = 2 * (((moments**2).sum((1, 2)) - quartic) / (counts - 1) ** 2).sum() / n**2
    return contributions, 2 * contributions - of_bin[label], excess


def _neighbours(x: np.ndarray, v: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    n = len(x)
    _, nearest = cKDTree(x).query(x, k + 1)
    rows = np.repeat(np.arange(n), k)
    columns = _without_self(nearest).ravel()
    links = sparse.csr_array((np.full(n * k, 1 / k), (rows, columns)), shape=(n, n))
    contributions = (v * (links @ v)).sum(1)
    both = (links + links.T).tocoo()
    influences = (v * (both @ v)).sum(1) - links @ contributions
    products = (v[both.row] * v[both.col]).sum(1)
    return contributions, influences, float(0.5 * (both.data**2 * products**2).sum() / n**2)


def equal_cells(x: np.ndarray, cells: int) -> np.ndarray:
    """Cut [N, D] by medians along the coordinates in turn into 2^round(log2 cells) cells of equal counts (+- 1): labels [N]."""
    n = len(x)
    label = np.zeros(n, dtype=np.int64)
    for level in range(round(np.log2(cells))):
        order = np.lexsort((x[:, level % x.shape[1]], label))
        counts = np.bincount(label, minlength=2**level)
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
        label = 2 * label + (2 * rank >= counts[label])
    return label


def _without_self(nearest: np.ndarray) -> np.ndarray:
    """Drop each row's own index from [N, k + 1]; the last index where a coincident point took the row's own place."""
    itself = nearest == np.arange(len(nearest))[:, None]
    itself[~itself.any(1), -1] = True
    return nearest[~itself].reshape(len(nearest), -1)


def _points(x: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray]:
    dimension = x[0].numel()
    if dimension > HIGHEST_DIMENSION:
        raise ConfigurationError(
            f"bins and neighbours are for {HIGHEST_DIMENSION} dimensions at most, not for {dimension}",
            fix="estimator='critic'",
        )
    return x.flatten(1).double().cpu().numpy(), v.flatten(1).double().cpu().numpy()


def _stack(parts: list[tuple[np.ndarray, np.ndarray, float]]) -> Estimate:
    contributions, influences, excess = zip(*parts, strict=True)
    return Estimate(np.stack(contributions), np.stack(influences), np.array(excess))
