"""The contract of a law whose density is known."""

from typing import Protocol

import numpy as np
import torch


class Density(Protocol):
    """A law on R^D whose density is known exactly; float64 throughout."""

    bounded: bool  # true: the density vanishes somewhere, and `support` tells where

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-density in nats, [N, D] -> [N]; -inf off the support."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """Gradient of the log-density, [N, D] -> [N, D]; nan off the support."""

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        """n independent points, [n, D]."""

    def support(self, x: torch.Tensor) -> torch.Tensor:
        """Whether the density is positive there, [N, D] -> bool [N]."""
