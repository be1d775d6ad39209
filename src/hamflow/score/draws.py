"""Random numbers that are functions of (seed, keys) alone: no global generator, and resuming is free."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Source = Callable[[int, np.random.Generator], Tensor]  # (n, rng) -> n samples of the data, [n, *dims]


def generator(seed: int, *keys: int) -> np.random.Generator:
    """A counter-based generator (Philox) of its own for each tuple of integers >= 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))


def normal(rng: np.random.Generator, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Unit normal numbers with the dtype and device of `like`; drawn in float64, so that they do not depend
    on its dtype."""
    return torch.from_numpy(rng.standard_normal(shape)).to(like)


def uniform(rng: np.random.Generator, n: int, like: Tensor) -> Tensor:
    """n numbers in [0, 1) with the dtype and device of `like`."""
    return torch.from_numpy(rng.random(n)).to(like)


def from_array(samples: Tensor) -> Source:
    """The source that draws from given samples [N, *dims], with replacement."""

    def draw(n: int, rng: np.random.Generator) -> Tensor:
        return samples[torch.from_numpy(rng.integers(len(samples), size=n)).to(samples.device)]

    return draw
