"""What an estimator returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.registry import Registry

ESTIMATORS: Registry = Registry("estimator", "hamflow.score.estimators", given=("x", "v", "times", "rng", "force"))


@dataclass(frozen=True)
class Estimate:
    """D at m times from U exchangeable units (samples, or pairs of them).

    Attributes:
        contributions: [m, U], per-unit contribution to D; their mean over the units is D.
        influences: [m, U], per-unit influence on D.
        excess: [m], subtract it from the variance of the influences' mean: pair statistics count each pair twice. Negative
            where they count a pair once that stands in two units.
    """

    contributions: np.ndarray
    influences: np.ndarray
    excess: np.ndarray

    def standard_error(self, weights: np.ndarray) -> float:
        """Of weights . D."""
        variance = (weights @ self.influences).var(ddof=1) / self.influences.shape[1]
        return float(np.sqrt(max(variance - weights**2 @ self.excess, variance / 2)))

    def standard_errors(self) -> np.ndarray:
        """Of D at each time, [m]."""
        return np.array([self.standard_error(time) for time in np.eye(len(self.influences))])


def estimator(name: str, *, antithetic: bool) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Register f(x [m, N, *dims], v, times [m], rng, *, force, **options) -> Estimate under `name`.

    antithetic: the second half of the N samples are the first half's with -v_0.
    """

    def enter(function: Any) -> Any:
        function.antithetic = antithetic
        return ESTIMATORS.register(name)(function)

    return enter


def folds_of(units: int, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold number for each unit, at random, of equal counts up to one. Raises ConfigurationError for fewer than 2 folds."""
    if folds < 2 or folds > units:
        raise ConfigurationError(
            f"`folds` must be between 2 and the number of samples, {units}, got {folds}",
            why="a critic judged on what it was fitted to overestimates the discrepancy",
        )
    return rng.permutation(np.arange(units) % folds)


def pair_gain(predicted: Tensor, v: Tensor) -> np.ndarray:
    """2 V . v - |V|^2 of [N, *dims], averaged over the antithetic pairs (i, i + N/2): [N/2] in float64."""
    per_sample = (predicted.double() * (2 * v.double() - predicted.double())).flatten(1).sum(1)
    return torch.stack(per_sample.chunk(2)).mean(0).cpu().numpy()
