"""Trajectories of samples under a force, and what the error of their integration does to the discrepancy."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hamflow.draws import generator
from hamflow.dynamics import simulate
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.score.estimators.base import pair_gain
from hamflow.score.estimators.features import feature_map, moments, predict

FEATURES = 64
HIGHEST_LINEAR = 256  # dimension up to which the position itself is a feature: its second moments cost the square
Steps = tuple[int, ...]  # from each time to the next
SMALLEST, LARGEST = 256, 4096  # samples on which the error is measured, a quarter of all in between


def steps_between(times: np.ndarray, steps: int) -> tuple[int, ...]:
    """The least numbers of equal steps, from each time to the next, of which none is longer than T / steps."""
    if steps < 1:
        raise ConfigurationError(f"an integration needs steps >= 1, got {steps}")
    return tuple(max(1, int(np.ceil(steps * part / times[-1] - 1e-9))) for part in np.diff(times, prepend=0.0))


@torch.no_grad()
def trajectories(
    force: Force, x: Tensor, v: Tensor, times: np.ndarray, steps: int | Steps, scheme: str = "leapfrog", batch: int = 8192
) -> tuple[Tensor, Tensor]:
    """Positions and velocities at all times, each [m, N, *dims]; `steps`: see `steps_between`, or its value.

    Raises:
        DivergenceError: a position or velocity that is not finite, with the time.
    """
    counts = steps_between(times, steps) if isinstance(steps, int) else steps
    pieces = [_trajectory(force, x[i : i + batch], v[i : i + batch], times, counts, scheme) for i in range(0, len(x), batch)]
    return torch.cat([p[0] for p in pieces], dim=1), torch.cat([p[1] for p in pieces], dim=1)


def antithetic_trajectories(
    force: Force, x: Tensor, v: Tensor, times: np.ndarray, steps: int | Steps, scheme: str, batch: int
) -> tuple[Tensor, Tensor]:
    """The trajectories from (x, v), then those from (x, -v): [m, 2 N, *dims]. Row i of a call of the force is sample i."""
    both = [trajectories(force, x, sign * v, times, steps, scheme, batch) for sign in (1, -1)]
    return torch.cat([b[0] for b in both], dim=1), torch.cat([b[1] for b in both], dim=1)


def _trajectory(force: Force, x: Tensor, v: Tensor, times: np.ndarray, steps: Steps, scheme: str) -> tuple[Tensor, Tensor]:
    positions, velocities, start = [], [], 0.0
    for t, count in zip(times, steps, strict=True):
        x, v = simulate(force, x, v, float(t - start), count, scheme, start=start)
        bad = ~(torch.isfinite(x) & torch.isfinite(v)).flatten(1).all(1)
        if bool(bad.any()):
            raise DivergenceError(
                f"{int(bad.sum())} of {len(x)} trajectories left the finite numbers between t = {start:g} and {t:g}",
                why="a discrepancy of what is left would look better than the force is",
                fix="shorten the times, raise `steps`, or examine the force: it grows without bound",
            )
        positions.append(x)
        velocities.append(v)
        start = float(t)
    return torch.stack(positions), torch.stack(velocities)


class IntegrationError(NamedTuple):
    """`errors` [m] of D, `average`: of its average; `spreads` [m]: standard deviations of what one pair says of D."""

    errors: np.ndarray
    average: float
    spreads: np.ndarray


def twice(steps: Steps) -> Steps:
    """Half as long steps."""
    return tuple(2 * count for count in steps)


class Probe:
    """How far D is from its value for exact trajectories, measured on the first samples by halving the steps.

    The same samples and velocities are moved with these steps and with steps of half the length, and a linear predictor is
    fitted to both. The change of E[2 V . v - |V|^2] is a mean over pairs of samples; its bound is that mean and two of its
    standard errors. An error of order p >= 2 is at most 4/3 of its change.
    """

    def __init__(self, force: Force, x: Tensor, v: Tensor, times: np.ndarray, weights: np.ndarray, scheme: str, batch: int):
        part = min(len(x), max(SMALLEST, min(len(x) // 4, LARGEST)))
        self._moved = (force, x[:part], v[:part], times)
        self._weights, self._scheme, self._batch = weights, scheme, batch
        self._known: dict[Steps, np.ndarray | None] = {}

    def __call__(self, steps: Steps) -> IntegrationError:
        """The error of an integration with so many steps; infinite where trajectories diverge."""
        coarse, fine = self._gains(steps), self._gains(twice(steps))
        if coarse is None or fine is None:
            endless = np.full(len(self._weights), np.inf)
            return IntegrationError(endless, np.inf, endless)
        change = fine - coarse
        return IntegrationError(_bound(change), float(_bound(self._weights @ change)), fine.std(1, ddof=1))

    def _gains(self, steps: Steps) -> np.ndarray | None:
        if steps not in self._known:
            force, x, v, times = self._moved
            try:
                pairs = zip(*antithetic_trajectories(force, x, v, times, steps, self._scheme, self._batch), strict=True)
                self._known[steps] = np.stack([_fitted_gains(*pair) for pair in pairs])
            except DivergenceError:
                self._known[steps] = None
        return self._known[steps]


def _bound(change: np.ndarray) -> np.ndarray:
    return 4 / 3 * (np.abs(change.mean(-1)) + 2 * change.std(-1, ddof=1) / change.shape[-1] ** 0.5)


def _fitted_gains(x: Tensor, v: Tensor) -> np.ndarray:
    """2 V . v - |V|^2 of a predictor fitted to these very pairs: its optimism is the same for two integrations, so not in their
    difference. The penalty is negligible for far more rows than features, and as large as an eigenvalue for fewer."""
    x, v = x.flatten(1).double(), v.flatten(1).double()
    phi = feature_map(x, FEATURES, generator(0, "integration", "features"), linear=x.shape[1] <= HIGHEST_LINEAR)
    gram, cross = moments(phi, x, v)
    penalty = gram.diagonal().sum() / len(x)
    weights = torch.linalg.solve(gram + penalty * torch.eye(len(gram)).to(gram), cross)
    return pair_gain(predict(phi, x, weights), v)
