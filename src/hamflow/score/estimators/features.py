"""A velocity predictor linear in random Fourier features: the lower bound, maximised in closed form and cross-fitted."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from hamflow.dynamics.forces import Force
from hamflow.registry import Count
from hamflow.score.estimators.base import Estimate, estimator, folds_of, pair_gain

LENGTH_SCALES = (0.15, 2.0)  # of the features, in spreads of x_t: from a narrow component of a mixture to beyond the whole
LINEAR = 10.0  # weight of 1 and x among the features: hardly penalised, so that Gaussian data lose nothing
PENALTIES = np.logspace(-9, 5, 29)  # tried, relative to the mean eigenvalue of the features' second moments
CHUNK = 4096  # rows whose features are in memory at a time

Map = Callable[[Tensor], Tensor]  # x [N, D] -> features [N, P]


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

    The penalty of a fold is the one that does best on each of the other folds when fitted to those that remain, so that no
    sample is judged by a predictor that saw it: the result is a lower bound of D in expectation.

    Args:
        features: number of random Fourier features (Rahimi and Recht 2007), besides 1 and x. folds: >= 3.
    """
    units, folds = x.shape[1] // 2, max(folds, 3)
    fold = folds_of(units, folds, rng)
    members = [np.flatnonzero(fold == f) for f in range(folds)]
    gains, excess = np.empty((len(times), units)), np.zeros(len(times))
    for j in range(len(times)):
        points, target = x[j].flatten(1).double(), v[j].flatten(1).double()
        phi = feature_map(points, features, rng)
        rows = [torch.from_numpy(np.concatenate([m, m + units])).to(points.device) for m in members]
        parts = [(points[r], target[r]) for r in rows]
        weights = _cross_fit([moments(phi, *part) for part in parts])
        for f, (a, b) in enumerate(parts):
            own, other = predict(phi, a, torch.cat([weights[f], weights[f - 1]], dim=1)).chunk(2, dim=1)
            gains[j, members[f]] = pair_gain(own, b)
            excess[j] -= _pair_noise(own, other, b) * (folds - 1) / 2 / units**2
    return Estimate(gains, gains, excess)


def _pair_noise(own: Tensor, other: Tensor, v: Tensor) -> float:
    """Sum over antithetic pairs of (2 dV . (v - V))^2, dV the difference of the predictors of two folds.

    Where V is little but noise, the product of two samples in different folds stands in the gains of both: noise that the
    variance of the gains counts once, not twice. A predictor fitted to k blocks shares k - 1 of them with another fold's:
    if each block adds noise of variance s^2 / k^2, V has s^2 / k and dV has 2 s^2 / k^2, k = folds - 1.
    """
    product = (2 * (own - other) * (v - own)).sum(1)
    return float(torch.stack(product.chunk(2)).mean(0).square().sum())


def feature_map(x: Tensor, count: int, rng: np.random.Generator, linear: bool = True) -> Map:
    """The features of points like x [N, D]: 1, x (if `linear`) and `count` waves, of about unit size."""
    dimension, mean, spread = x.shape[1], x.mean(0), x.std(0).clamp(min=1e-12)
    scales = np.exp(rng.uniform(np.log(LENGTH_SCALES[0]), np.log(LENGTH_SCALES[1]), size=count))
    frequencies = torch.from_numpy(rng.standard_normal((dimension, count)) / (scales * np.sqrt(dimension))).to(x)
    phases = torch.from_numpy(rng.uniform(0, 2 * np.pi, size=count)).to(x)
    # Amplitudes in proportion to the length scale, so that the ridge prefers smooth fields: antithetic pairs see the noise
    # v_0 . (phi(x + t v_0) - phi(x - t v_0)), which grows with the slope of a feature.
    amplitudes = torch.from_numpy(np.sqrt(2.0) * scales).to(x)

    def phi(points: Tensor) -> Tensor:
        y = (points - mean) / spread
        waves = torch.addmm(phases, y, frequencies).cos_().mul_(amplitudes)
        return torch.cat([torch.full_like(y[:, :1], LINEAR), *([LINEAR * y] if linear else []), waves], dim=1)

    return phi


def moments(phi: Map, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(sum phi phi^T [P, P], sum phi v^T [P, D]) over the rows."""
    gram: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    for a, b in zip(x.split(CHUNK), v.split(CHUNK), strict=True):
        f = phi(a)
        gram, cross = gram + f.T @ f, cross + f.T @ b
    return torch.as_tensor(gram), torch.as_tensor(cross)


def predict(phi: Map, x: Tensor, weights: Tensor) -> Tensor:
    """V = W phi(x), [N, D]."""
    return torch.cat([phi(part) @ weights for part in x.split(CHUNK)])


def _cross_fit(folds: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The weights for each fold, fitted on the other folds, from the moments of every fold."""
    grams, crosses = (torch.stack(each) for each in zip(*folds, strict=True))
    weights, every = [], range(len(folds))
    scores = {pair: _validate(grams, crosses, pair) for pair in combinations(every, 2)}
    for f in every:
        total = sum(scores[min(f, g), max(f, g)][int(f < g)] for g in every if g != f)
        values, vectors = torch.linalg.eigh(grams.sum(0) - grams[f])
        penalty = float(PENALTIES[int(np.argmax(total))] * values.mean())
        weights.append(_ridge(values, vectors, crosses.sum(0) - crosses[f], penalty))
    return weights


def _validate(grams: Tensor, crosses: Tensor, pair: tuple[int, int]) -> np.ndarray:
    """What the predictors fitted to all folds but a pair gain on each fold of the pair, by penalty: [2, penalties]."""
    rest = [g for g in range(len(grams)) if g not in pair]
    values, vectors = torch.linalg.eigh(grams[rest].sum(0))
    fits = [_ridge(values, vectors, crosses[rest].sum(0), float(p * values.mean())) for p in PENALTIES]
    return np.array([[_score(fit, grams[f], crosses[f]) for fit in fits] for f in pair])


def _ridge(values: Tensor, vectors: Tensor, cross: Tensor, penalty: float) -> Tensor:
    return vectors @ ((vectors.T @ cross) / (values.clamp(min=0) + penalty)[:, None])


def _score(weights: Tensor, gram: Tensor, cross: Tensor) -> float:
    """Sum over a fold of 2 V . v - |V|^2."""
    return float(2 * (weights * cross).sum() - (weights * (gram @ weights)).sum())
