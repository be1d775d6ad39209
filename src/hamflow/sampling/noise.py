"""Noise that belongs to its sample."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

SEEDS_PER_RUN = 1_000_000  # run k draws samples k * 1e6, k * 1e6 + 1, ...: disjoint ranges, as EDM's protocol asks for


def unit_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Unit normal noise, row i a function of seeds[i] alone, on every machine and device.

    Args:
        seeds: N integers >= 0.
        shape: of one sample.
    Returns: float64, [N, *shape], on the CPU.
    """
    rows = [np.random.Generator(np.random.Philox(key=[seed, 0])).standard_normal(shape) for seed in seeds]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros((0, *shape), dtype=torch.float64)
