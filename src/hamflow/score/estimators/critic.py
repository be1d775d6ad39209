"""A trained velocity predictor, cross-fitted."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow import networks
from hamflow.dynamics.forces import Force
from hamflow.networks.base import NETWORKS
from hamflow.registry import NotNegative, Positive, convert
from hamflow.score.estimators.base import Estimate, estimator, folds_of, pair_gain
from hamflow.score.fields import VelocityPredictor
from hamflow.score.objectives import gain
from hamflow.training.fit import Batch, Objective, Samples, Turn, fitted
from hamflow.training.plan import Training


class CriticTraining(Training, kw_only=True, frozen=True):
    """How a critic is trained; an image here is an antithetic pair."""

    train_kimg: Positive = 256.0
    learning_rate: Positive = 3e-3
    gradient_clip: NotNegative = 0.0
    ema_halflife_kimg: NotNegative = 9.0
    ema_rampup: Positive = 0.07
    report_kimg: Positive = 64.0


Factory = Callable[[int], nn.Module]  # fold -> a new predictor (x, t, force) -> V
Trajectory = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (rows, numbers of times) -> (x, v)
Network = Annotated[dict[str, Any], NETWORKS.entry("kind")]
CRITIC = Annotated[Any, Meta(extra={"check": lambda value, where: callable(value) or convert(Network, value, where)})]
PLAN = Annotated[dict[str, Any], Meta(extra={"check": lambda value, where: convert(CriticTraining, value, where)})]
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
    form: Literal["direct", "scaled", "residual"] = "scaled",
    training: PLAN = {},  # noqa: B006  not changed
) -> Estimate:
    """E[2 V . v - |V|^2], V a network for all times, trained on one half of the pairs, judged on the other, and the reverse.

    The judged half is cut in two: each part sets one factor c(t) >= 0 on V for the other part, the maximiser of the bound, so
    that an overfitted V is damped. No sample is judged by what it was used for: the result is a lower bound of D on average.
    Args:
        critic: a network spec {kind, ...}, or a function of the half's number that makes a module (x, t, force) -> V.
        form: of the predictor made from a spec, see `VelocityPredictor`.
        training: what differs from `CriticTraining`.
    """
    units = x.shape[1] // 2
    quarter = folds_of(units, 4, rng)
    seed = int(rng.integers(2**31))
    make = critic if callable(critic) else _factory(critic, form, x, float(times[-1]), seed)
    plan = convert(CriticTraining, training, "training")
    gains = np.empty((len(times), units))
    for half in (0, 1):
        train = np.flatnonzero(quarter // 2 == 1 - half)
        predictor = fit_critic(make(half), x, v, times, train, force, plan, seed + half)
        judged = [np.flatnonzero(quarter == 2 * half + part) for part in (0, 1)]
        pairs = [torch.from_numpy(np.concatenate([j, j + units])).to(x.device) for j in judged]
        for index, t in enumerate(times):
            predicted = [_predict(predictor, x[index][p], float(t), force).double() for p in pairs]
            true = [v[index][p].double() for p in pairs]
            for part in (0, 1):
                factor = _best_factor(predicted[1 - part], true[1 - part])
                gains[index, judged[part]] = pair_gain(factor * predicted[part], true[part])
    return Estimate(gains, gains, np.zeros(len(times)))


class CriticObjective(Objective):
    """E (|V|^2 - 2 V . v) / t^2 at random times, of the antithetic pairs whose numbers are the rows.

    The weight makes up for D ~ t^2, so that V / t is learned equally well at all times.

    Args:
        predictor: module (x, t, force) -> V.
        trajectory: gives the end points of rows, of which the second half are the antithetic ones. times: [m].
        force: passed to the predictor, with constant weights.
    """

    turns = (Turn("critic", "predictor"),)

    def __init__(self, predictor: nn.Module, trajectory: Trajectory, times: Tensor, units: int, force: Force | None):
        super().__init__()
        self.predictor, self.trajectory, self.times, self.units = predictor, trajectory, times, units
        self.force = (force,)  # in a tuple: it may be a module, but none of this objective's

    def losses(self, turn: str, batch: Batch) -> Tensor:
        when = (batch.draw.uniform("time") * len(self.times)).long().repeat(2)
        x, v = self.trajectory(torch.cat([batch.x, batch.x + self.units]), when)
        t = self.times[when]
        value = gain(self.predictor(x, t, *self.force), v) / t.square()
        return -value.view(2, -1).mean(0)


def fit_critic(
    predictor: nn.Module,
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    units: np.ndarray,
    force: Force | None,
    plan: Training,
    seed: int,
) -> nn.Module:
    """Train V on the antithetic pairs numbered `units` of trajectories [m, N, *dims]; the averaged V."""
    grid = torch.from_numpy(times).to(x)
    move = lambda rows, when: (x[when, rows], v[when, rows])  # noqa: E731  in a function, so that no copy of x is averaged
    objective = CriticObjective(predictor.to(x), move, grid, x.shape[1] // 2, force)
    return fitted(objective, Samples(torch.from_numpy(units)), plan, seed).predictor


@torch.no_grad()
def _predict(predictor: nn.Module, x: Tensor, t: float, force: Force | None, batch: int = 4096) -> Tensor:
    return torch.cat([predictor(part, part.new_full((len(part),), t), force) for part in x.split(batch)])


def _best_factor(predicted: Tensor, v: Tensor) -> float:
    """The c >= 0 that maximises E[2 c V . v - c^2 |V|^2]."""
    return max(0.0, float((predicted * v).sum() / predicted.square().sum().clamp(min=1e-300)))


def _factory(spec: Mapping[str, Any], form: str, x: Tensor, horizon: float, seed: int) -> Factory:
    shape = tuple(x.shape[2:])
    spread = float(x[0].double().std())

    def make(fold: int) -> nn.Module:
        return VelocityPredictor(networks.build(spec, shape, 0, seed + fold, "predictor"), form, horizon, spread)

    return make
