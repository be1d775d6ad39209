"""The Hamiltonian score discrepancy D(t) = E|E[v_t | x_t]|^2 of a force, estimated from samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow import draws
from hamflow.dynamics import simulate
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.score.estimators import ESTIMATORS


@dataclass(frozen=True)
class Discrepancy:
    """D at each time, and its average over [0, T]; summed over the coordinates, velocity squared (v_0 has
    unit variance).

    Attributes:
        times: [m], increasing. values, standard_errors: D(t) and its standard error, [m].
        average, average_standard_error: of (1/T) int_0^T D(t) dt, T = times[-1].
        estimator: how it was estimated. n: independent samples. dimension: coordinates of a sample.
    """

    times: np.ndarray
    values: np.ndarray
    standard_errors: np.ndarray
    average: float
    average_standard_error: float
    estimator: str
    n: int
    dimension: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}


def hamiltonian_score_discrepancy(
    force: Force,
    samples: Tensor,
    times: Sequence[float] | np.ndarray | Tensor,
    *,
    estimator: str = "critic",
    seed: int = 0,
    steps: int = 8,
    scheme: str = "leapfrog",
    velocities: Tensor | None = None,
    single_time: bool = False,
    batch: int = 8192,
    **options: Any,
) -> Discrepancy:
    """D(t) = E|E[v_t | x_t]|^2 for x_0 from `samples`, v_0 ~ N(0, I), moved by `force`: zero on [0, T] if and
    only if F is their score.

    Args:
        force: F(x, t) -> like x. samples: [N, *dims], data units.
        times: increasing, > 0, time units; the last is T. One alone is refused unless `single_time`.
        estimator: "critic": a trained network, cross-fitted (each half of the data is judged by a predictor
            that never saw it), an honest lower bound in any dimension. "features": the same with a linear
            predictor on random Fourier features, fitted in closed form. "binned", "neighbours": free of
            training, for up to 3 dimensions, unbiased but for their smoothing over a bin of equal count or
            over nearest neighbours (SPEC 1.8).
        seed: of the velocities, the folds and the critics. velocities: [N, *dims] instead of drawing v_0.
        steps, scheme: of the integration to T. single_time: allow one time.
        batch: samples moved at a time; no influence on the result.
        options: of the estimator, see `hamflow.score.estimators`.
    Returns:
        `Discrepancy`; the standard errors are those of the sample of (x_0, v_0), given the critics.
    Raises:
        ConfigurationError: times that are no such grid, an unknown estimator or option, a force whose value
            is not shaped like x.
        DivergenceError: trajectories that leave the finite numbers.
    Source: arXiv:2410.20470, HSD; SPEC 1.3, 1.4.
    """
    grid = check_times(times, single_time)
    estimate = ESTIMATORS.get(estimator)
    v = velocities if velocities is not None else draws.normal_like(draws.generator(seed, "discrepancy", "velocities"), samples)
    if v.shape != samples.shape:
        raise ConfigurationError(f"velocities have shape {tuple(v.shape)}, samples {tuple(samples.shape)}")
    x = samples
    if estimate.antithetic:  # v_0 and -v_0 together: what is odd in v_0 cancels in each pair
        x, v = torch.cat([x, x]), torch.cat([v, -v])
    x_t, v_t = trajectories(force, x, v, grid, steps, scheme, batch)
    result = ESTIMATORS.build(
        estimator, x_t, v_t, grid, draws.generator(seed, "discrepancy", "estimator"), force=force, **options
    )
    weights = average_weights(grid)
    values = result.contributions.mean(1)
    spread = result.influences.var(1, ddof=1) / result.influences.shape[1]
    mixed = (weights @ result.influences).var(ddof=1) / result.influences.shape[1]
    return Discrepancy(
        times=grid,
        values=values,
        standard_errors=np.sqrt(np.maximum(spread - result.excess, spread / 2)),
        average=float(weights @ values),
        average_standard_error=float(np.sqrt(max(mixed - weights**2 @ result.excess, mixed / 2))),
        estimator=estimator,
        n=len(samples),
        dimension=int(np.prod(samples.shape[1:])),
    )


def check_times(times: Sequence[float] | np.ndarray | Tensor, single_time: bool) -> np.ndarray:
    """The times as an array. Raises ConfigurationError unless they are increasing, > 0 and more than one (or
    one was asked for)."""
    grid = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all() or not (np.diff(grid, prepend=0.0) > 0).all():
        raise ConfigurationError(
            f"the times of the discrepancy must be increasing and > 0, got {grid.tolist()}",
            why="at t = 0 every force has discrepancy zero",
        )
    if len(grid) == 1 and not single_time:
        raise ConfigurationError(
            f"one time alone, t = {grid[0]:g}, does not tell a wrong force from the score",
            why="blind spots: Gaussian data under F = -w^2 x have D(t) = 0 at w t = k pi/2 for every w",
            fix="give several times up to T, as numpy.linspace(T / 8, T, 8), or single_time=True to insist",
        )
    return grid


def average_weights(times: np.ndarray) -> np.ndarray:
    """w with (1/T) int_0^T D dt = w . D(times) if D(t) / t^2 is linear between the times and constant before
    the first.

    D(t) = 2 t^2 L_esm + O(t^4), so that the trapezium rule on D itself would be wrong by 1 / (2 m^2) for m
    equal intervals.
    """
    node = 0.5 / np.sqrt(3.0)  # two-point Gauss quadrature is exact for t^2 times a linear function
    weights = np.zeros_like(times)
    weights[0] = times[0] ** 3 / 3
    for left, (a, b) in enumerate(pairwise(times)):
        for u in (0.5 - node, 0.5 + node):
            t_squared = (a + u * (b - a)) ** 2 * (b - a) / 2
            weights[left] += (1 - u) * t_squared
            weights[left + 1] += u * t_squared
    return weights / times**2 / times[-1]


@torch.no_grad()
def trajectories(
    force: Force,
    x: Tensor,
    v: Tensor,
    times: np.ndarray,
    steps: int,
    scheme: str = "leapfrog",
    batch: int = 8192,
) -> tuple[Tensor, Tensor]:
    """Positions and velocities at all times, each [m, N, *dims]; `steps` cut [0, T] into steps of at most T /
    steps.

    Raises:
        DivergenceError: a position or velocity that is not finite, with the time.
    """
    if steps < 1:
        raise ConfigurationError(f"an integration needs steps >= 1, got {steps}")
    pieces = [_trajectory(force, x[i : i + batch], v[i : i + batch], times, steps, scheme) for i in range(0, len(x), batch)]
    return torch.cat([p[0] for p in pieces], dim=1), torch.cat([p[1] for p in pieces], dim=1)


def _trajectory(force: Force, x: Tensor, v: Tensor, times: np.ndarray, steps: int, scheme: str) -> tuple[Tensor, Tensor]:
    positions, velocities, start = [], [], 0.0
    for t in times:
        count = max(1, int(np.ceil(steps * (t - start) / times[-1] - 1e-9)))
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
