"""Score networks trained on an objective without a critic: denoising, implicit, sliced."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hamflow import draws
from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.score import objectives
from hamflow.training.adam import Adam

Loss = Callable[[nn.Module, Tensor, np.random.Generator], Tensor]  # (score, x [N, *dims], rng) -> [N]


@dataclass(frozen=True)
class DirectSettings:
    """Adam with cosine decay to zero, gradient clipping and averaged weights, as Hamiltonian score matching
    has them.

    Attributes: steps: updates. batch: samples an update. learning_rate: at the start. ema: of the weights, in
        [0, 1).
        gradient_clip: largest norm; 0: none.
    """

    steps: int = 2000
    batch: int = 256
    learning_rate: float = 1e-3
    ema: float = 0.99
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0 or not 0 <= self.ema < 1:
            raise ConfigurationError(f"training needs steps, batch >= 1, learning_rate > 0 and ema in [0, 1), got {self}")


def denoising(sigma: float) -> Loss:
    """Denoising score matching at noise level sigma, data units, > 0."""
    if not sigma > 0:
        raise ConfigurationError(f"denoising score matching needs sigma > 0, got {sigma}")
    return lambda score, x, rng: objectives.denoising(score, x, draws.normal_like(rng, x), sigma)


def implicit(score: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Implicit score matching with the exact divergence."""
    return objectives.implicit(score, x)


def hutchinson(score: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Implicit score matching with the divergence estimated along one random direction a sample."""
    return objectives.implicit(score, x, draws.normal_like(rng, x[None]))


def sliced(score: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
    """Sliced score matching with one direction a sample."""
    return objectives.sliced(score, x, draws.normal_like(rng, x[None]))


def train_directly(
    score: nn.Module, loss: Loss, source: Callable[[int, np.random.Generator], Tensor], settings: DirectSettings, seed: int = 0
) -> nn.Module:
    """Train `score` in place; the module with averaged weights.

    Raises:
        DivergenceError: a loss or gradient that is not finite, with the step.
    """
    average, like = copy.deepcopy(score), next(score.parameters())
    optimizer = Adam(score.parameters(), settings.learning_rate)
    for step in range(settings.steps):
        rng = draws.generator(seed, "training", "direct", step)
        value = loss(score, source(settings.batch, rng).to(like), rng).mean()
        optimizer.zero_grad()
        value.backward()
        norm = float(nn.utils.clip_grad_norm_(score.parameters(), settings.gradient_clip or math.inf))
        if not math.isfinite(norm):
            raise DivergenceError(
                f"score matching diverged at step {step + 1} of {settings.steps}: gradient norm {norm}",
                fix="lower `learning_rate`",
            )
        rate = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        optimizer.param_groups[0]["lr"] = settings.learning_rate * rate
        optimizer.step()
        keep = min(settings.ema, (step + 1) / (11 + step))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), score.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
    return average
