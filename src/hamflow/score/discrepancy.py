"""The Hamiltonian score discrepancy D(t) = E|E[v_t | x_t]|^2 of a force, estimated from samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from hamflow import draws
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError
from hamflow.score.estimators import ESTIMATORS, Estimate
from hamflow.score.integration import (
    IntegrationError,
    Probe,
    Steps,
    antithetic_trajectories,
    steps_between,
    trajectories,
    twice,
)

LOW_DIMENSION = 3  # up to here random features are closer to the closed forms than a network, in less time
TOLERANCE = 0.25  # of the integration error, in standard errors
MOST_STEPS = 128


@dataclass(frozen=True)
class Discrepancy:
    """D at each time, and its average over [0, T]; summed over the coordinates, velocity squared (v_0 has unit variance).

    Attributes:
        times: [m], increasing. values: D(t), [m].
        standard_errors: [m], of D(t), from the finite number of samples alone.
        integration_errors: [m], how far D(t) may be from its value for exact trajectories, see `integration.Probe`.
        average: (1/T) int_0^T D(t) dt, T = times[-1]; average_standard_error and average_integration_error are its errors.
        steps: of the integration to T. converged: whether every integration error is at most a quarter of its standard error.
        estimator: its name. n: independent samples. dimension: coordinates of a sample.
    """

    times: np.ndarray
    values: np.ndarray
    standard_errors: np.ndarray
    integration_errors: np.ndarray
    average: float
    average_standard_error: float
    average_integration_error: float
    steps: int
    converged: bool
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
    estimator: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    scheme: str = "blanes_moan4",
    velocities: Tensor | None = None,
    single_time: bool = False,
    batch: int = 8192,
    **options: Any,
) -> Discrepancy:
    """D(t) = E|E[v_t | x_t]|^2 for x_0 from `samples`, v_0 ~ N(0, I), moved by `force`: zero on [0, T] if and only if the force
    is the score of the samples.

    Args:
        force: F(x, t) -> like x. samples: [N, *dims], data units, in random order.
        times: increasing, > 0, time units; the last is T. One alone is refused unless `single_time`.
        estimator: None: "features" for up to 3 dimensions, else "critic".
            "features": a linear predictor on random Fourier features, cross-fitted in closed form (no sample is judged by a
            predictor that saw it): a lower bound. "critic": a trained network, cross-fitted: a lower bound in any dimension.
            "binned", "neighbours": no training, up to 3 dimensions, unbiased but for their smoothing over a bin of equal count
            or over nearest neighbours (theory 3.1 to 3.4).
        seed: of the velocities, the folds and the critics. velocities: [N, *dims] instead of drawing v_0.
        steps: of the integration to T. None: halved in length until the integration error of every D(t) is at most a quarter of
            its standard error, or there are 128. scheme: of the integration.
        single_time: allow one time. batch: samples moved at a time; no influence on the result.
        options: of the estimator, see `hamflow.score.estimators`.
    Returns:
        `Discrepancy`; the standard errors are those of the sample of (x_0, v_0), given the critics.
    Raises:
        ConfigurationError: times that are no such grid, an unknown estimator or option, a force whose value is not shaped
            like x.
        DivergenceError: trajectories that leave the finite numbers.
    Source: arXiv:2410.20470, HSD; theory 2.3, 2.4, 2.7.
    """
    grid = check_times(times, single_time)
    weights = average_weights(grid)
    name = estimator or ("features" if samples[0].numel() <= LOW_DIMENSION else "critic")
    move = antithetic_trajectories if ESTIMATORS.get(name).antithetic else trajectories
    v = velocities if velocities is not None else draws.normal_like(draws.generator(seed, "discrepancy", "velocities"), samples)
    if v.shape != samples.shape:
        raise ConfigurationError(f"velocities have shape {tuple(v.shape)}, samples {tuple(samples.shape)}")
    probe = Probe(force, samples, v, grid, weights, scheme, batch)

    def estimate(count: Steps) -> Estimate:
        x_t, v_t = move(force, samples, v, grid, count, scheme, batch)
        return ESTIMATORS.build(name, x_t, v_t, grid, draws.generator(seed, "discrepancy", "estimator"), force=force, **options)

    count = steps_between(grid, 1 if steps is None else steps)
    if steps is None:
        count = _refine(count, probe, len(samples))
    result, error = estimate(count), probe(count)
    while steps is None and sum(count) < MOST_STEPS and not _converged(error, result.standard_errors()):
        count = twice(count)
        result, error = estimate(count), probe(count)
    return Discrepancy(
        times=grid,
        values=result.contributions.mean(1),
        standard_errors=result.standard_errors(),
        integration_errors=error.errors,
        average=float(weights @ result.contributions.mean(1)),
        average_standard_error=result.standard_error(weights),
        average_integration_error=error.average,
        steps=sum(count),
        converged=_converged(error, result.standard_errors()),
        estimator=name,
        n=len(samples),
        dimension=int(np.prod(samples.shape[1:])),
    )


def _converged(error: IntegrationError, standard_errors: np.ndarray) -> bool:
    return bool((error.errors <= TOLERANCE * standard_errors).all())


def _refine(steps: Steps, probe: Probe, n: int) -> Steps:
    """The steps whose error is small against the standard errors that the probe expects of n samples."""
    while sum(steps) < MOST_STEPS and not _converged(error := probe(steps), error.spreads / n**0.5):
        steps = twice(steps)
    return steps


def check_times(times: Sequence[float] | np.ndarray | Tensor, single_time: bool) -> np.ndarray:
    """The times as an array. Raises ConfigurationError unless increasing, > 0 and more than one (or one was asked for)."""
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
    """w with (1/T) int_0^T D dt = w . D(times) if D(t) / t^2 is linear between the times and constant before the first.

    D(t) = 2 t^2 L_esm + O(t^4), so that the trapezium rule on D itself would be wrong by 1 / (2 m^2) for m equal intervals.
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
