"""A trained velocity predictor, cross-fitted."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.dynamics.forces import Force
from hamflow.networks.base import NETWORKS
from hamflow.registry import Count, Positive, convert
from hamflow.score.estimators.base import Estimate, estimator, folds_of, pair_gain
from hamflow.score.fields import VelocityPredictor, build_network
from hamflow.score.objectives import gain
from hamflow.training.adam import Adam

Factory = Callable[[int], nn.Module]  # fold -> a new predictor (x, t, force) -> V
NETWORK = NETWORKS.entry("kind")
CRITIC = Annotated[Any, Meta(extra={"check": lambda value, where: callable(value) or convert(NETWORK, value, where)})]
SMALL = {"kind": "small", "width": 64, "depth": 2}


@estimator("critic", antithetic=True)
def critic(
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    rng: np.random.Generator,
    *,
    force: Force | None = None,
    critic: CRITIC = SMALL,
    form: Literal["plain", "scaled", "residual"] = "scaled",
    critic_steps: Count = 1000,
    critic_batch: Count = 256,
    learning_rate: Positive = 3e-3,
) -> Estimate:
    """E[2 V . v - |V|^2], V a network for all times, trained on one half of the pairs and judged on the
    other, then the reverse.

    The judged half is cut in two: each part sets one factor c(t) >= 0 on V for the other part, the maximiser
        of the bound, so
    that an overfitted V is damped. No sample is judged by what it was used for: the result is a lower bound
    of D in expectation.
    Args:
        critic: a network spec {kind, ...} as of `hamflow.networks` (or {kind: small, width, depth}), or a
            function of the half's number that makes a module (x, t, force) -> V. form: of the predictor made
            from a spec, see `VelocityPredictor`.
        critic_steps, critic_batch, learning_rate: of Adam, pairs a step, cosine decay, averaged weights.
    """
    units = x.shape[1] // 2
    quarter = folds_of(units, 4, rng)
    seed = int(rng.integers(2**31))
    make = critic if callable(critic) else _factory(critic, form, x, float(times[-1]), seed)
    gains = np.empty((len(times), units))
    for half in (0, 1):
        train = np.flatnonzero(quarter // 2 == 1 - half)
        predictor = fit_critic(make(half), x, v, times, train, rng, force, critic_steps, critic_batch, learning_rate)
        judged = [np.flatnonzero(quarter == 2 * half + part) for part in (0, 1)]
        pairs = [torch.from_numpy(np.concatenate([j, j + units])).to(x.device) for j in judged]
        for index, t in enumerate(times):
            predicted = [_predict(predictor, x[index][p], float(t), force).double() for p in pairs]
            true = [v[index][p].double() for p in pairs]
            for part in (0, 1):
                factor = _best_factor(predicted[1 - part], true[1 - part])
                gains[index, judged[part]] = pair_gain(factor * predicted[part], true[part])
    return Estimate(gains, gains, np.zeros(len(times)))


def _best_factor(predicted: Tensor, v: Tensor) -> float:
    """The c >= 0 that maximises E[2 c V . v - c^2 |V|^2]."""
    return max(0.0, float((predicted * v).sum() / predicted.square().sum().clamp(min=1e-300)))


def fit_critic(
    predictor: nn.Module,
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    units: np.ndarray,
    rng: np.random.Generator,
    force: Force | None,
    steps: int,
    batch: int,
    learning_rate: float,
) -> nn.Module:
    """Train V on the antithetic pairs numbered `units` at random times: maximise E (2 V . v - |V|^2) / t^2;
    the averaged V.

    The weight makes up for D ~ t^2, so that V / t is learned equally well at all times.
    """
    predictor = predictor.to(x)
    average = copy.deepcopy(predictor)
    optimizer = Adam(predictor.parameters(), learning_rate, betas=(0.9, 0.99))
    half, grid = x.shape[1] // 2, torch.from_numpy(times).to(x)
    for step in range(steps):
        picked = torch.from_numpy(rng.choice(units, size=batch)).to(x.device)
        pairs, when = (
            torch.cat([picked, picked + half]),
            torch.from_numpy(rng.integers(len(times), size=batch)).repeat(2),
        )
        when = when.to(x.device)
        t = grid[when]
        loss = -(gain(predictor(x[when, pairs], t, force), v[when, pairs]) / t.square()).mean()
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            keep = min(0.98, step / (10 + step))
            for slow, fast in zip(average.parameters(), predictor.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
    return average


@torch.no_grad()
def _predict(predictor: nn.Module, x: Tensor, t: float, force: Force | None, batch: int = 4096) -> Tensor:
    return torch.cat([predictor(part, part.new_full((len(part),), t), force) for part in x.split(batch)])


def _factory(spec: Mapping[str, Any], form: str, x: Tensor, horizon: float, seed: int) -> Factory:
    shape = tuple(x.shape[2:])
    spread = float(x[0].double().std())

    def make(fold: int) -> nn.Module:
        return VelocityPredictor(build_network(spec, shape, seed + fold), form, horizon, spread)

    return make
