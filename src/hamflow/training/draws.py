"""Every random number of training, as a pure function of (seed, step): resuming is free, and the batch may be split anyhow."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ORDER, NOISE = 1, 2  # streams of one seed


class Draws(NamedTuple):
    """The random numbers of one optimiser step.

    Attributes:
        rows: rows of the data set, int64 [batch].
        noise: unit normal, float32 [batch, *shape].
        u: stratified uniform numbers in (0, 1), float64 [batch]: one in each of `batch` equal intervals.
        dropout_seed: seeds the dropout masks.
    """

    rows: np.ndarray
    noise: Tensor
    u: Tensor
    dropout_seed: int


def draw_step(seed: int, step: int, batch: int, count: int, shape: tuple[int, ...]) -> Draws:
    """The draws of one step on a data set of `count` rows whose samples have `shape`."""
    generator = _generator(seed, NOISE, step)
    noise = generator.standard_normal((batch, *shape), dtype=np.float32)
    u = (generator.permutation(batch) + generator.uniform(1e-9, 1, batch)) / batch
    return Draws(
        rows=data_order(seed, step * batch, batch, count),
        noise=torch.from_numpy(noise),
        u=torch.from_numpy(u),
        dropout_seed=int(generator.integers(2**63)),
    )


def data_order(seed: int, position: int, length: int, count: int) -> np.ndarray:
    """Rows at positions [position, position + length) of the endless data order: one permutation after the other."""
    rows: list[np.ndarray] = []
    while length > 0:
        epoch, offset = divmod(position, count)
        rows.append(_permutation(seed, epoch, count)[offset : offset + length])
        position, length = position + len(rows[-1]), length - len(rows[-1])
    return np.concatenate(rows)


_latest: dict[tuple[int, int, int], np.ndarray] = {}  # the current epoch's permutation: a cache, not state


def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    key = (seed, epoch, count)
    if key not in _latest:
        _latest.clear()
        _latest[key] = _generator(seed, ORDER, epoch).permutation(count)
    return _latest[key]


def _generator(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, index]))
