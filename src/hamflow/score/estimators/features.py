"""A velocity predictor that is linear in random Fourier features: the lower bound maximised in closed form,
cross-fitted."""

import numpy as np
import torch
from torch import Tensor

from hamflow.dynamics.forces import Force
from hamflow.registry import Count
from hamflow.score.estimators.base import Estimate, estimator, folds_of, pair_gain

LENGTH_SCALES = (
    0.15,
    2.0,
)  # of the features, in spreads of x_t: from a narrow component of a mixture to beyond the whole
LINEAR = 10.0  # weight of 1 and x among the features: hardly penalised
PENALTIES = np.logspace(-9, 5, 29)  # tried, relative to the mean eigenvalue of the features' second moments


@estimator("features", antithetic=True)
def features(
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    rng: np.random.Generator,
    *,
    force: Force | None = None,
    features: Count = 192,
    folds: Count = 4,
) -> Estimate:
    """E[2 V . v - |V|^2] for V = W phi(x), W fitted by ridge regression at each time on the other folds.

    The penalty of each fold is the one that does best on the next fold when fitted to the remaining ones, so
    that the fold
    itself is never seen: the result is a lower bound of D in expectation.
    Args:
        features: number of random Fourier features (Rahimi and Recht 2007), besides 1 and x. folds: >= 3.
    """
    units = x.shape[1] // 2
    fold = folds_of(units, max(folds, 3), rng)
    gains = np.stack([_gains(x[j], v[j], np.tile(fold, 2), features, rng) for j in range(len(times))])
    return Estimate(gains, gains, np.zeros(len(times)))


def _gains(x: Tensor, v: Tensor, fold: np.ndarray, features: int, rng: np.random.Generator) -> np.ndarray:
    phi, target = _features(x.flatten(1).double(), features, rng), v.flatten(1).double()
    count = int(fold.max()) + 1
    masks = [torch.from_numpy(fold == f).to(phi.device) for f in range(count)]
    grams = torch.stack([phi[mask].T @ phi[mask] for mask in masks])
    moments = torch.stack([phi[mask].T @ target[mask] for mask in masks])
    predicted = torch.empty_like(target)
    for f, mask in enumerate(masks):
        judge = (f + 1) % count
        rest = [g for g in range(count) if g not in (f, judge)]
        values, vectors = torch.linalg.eigh(grams[rest].sum(0))
        penalty = max(
            (float(p * values.mean()) for p in PENALTIES),
            key=lambda p: _score(_ridge(values, vectors, moments[rest].sum(0), p), grams[judge], moments[judge]),
        )
        values, vectors = torch.linalg.eigh(grams.sum(0) - grams[f])
        predicted[mask] = phi[mask] @ _ridge(values, vectors, moments.sum(0) - moments[f], penalty)
    return pair_gain(predicted, target)


def _ridge(values: Tensor, vectors: Tensor, moments: Tensor, penalty: float) -> Tensor:
    return vectors @ ((vectors.T @ moments) / (values.clamp(min=0) + penalty)[:, None])


def _score(weights: Tensor, gram: Tensor, moments: Tensor) -> float:
    """Sum over a fold of 2 V . v - |V|^2."""
    return float(2 * (weights * moments).sum() - (weights * (gram @ weights)).sum())


def _features(x: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """[N, D] -> [N, 1 + D + count], of about unit size."""
    dimension = x.shape[1]
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-12)
    low, high = np.log(LENGTH_SCALES)
    scales = np.exp(rng.uniform(low, high, size=count))
    frequencies = rng.standard_normal((dimension, count)) / (scales * np.sqrt(dimension))
    phases = torch.from_numpy(rng.uniform(0, 2 * np.pi, size=count)).to(x)
    # Amplitudes in proportion to the length scale, so that the ridge prefers smooth fields: antithetic pairs
    # see the
    # noise v_0 . (phi(x + t v_0) - phi(x - t v_0)), which grows with the slope of a feature.
    waves = torch.from_numpy(np.sqrt(2.0) * scales).to(x) * torch.cos(x @ torch.from_numpy(frequencies).to(x) + phases)
    return torch.cat([LINEAR * torch.ones_like(x[:, :1]), LINEAR * x, waves], dim=1)
