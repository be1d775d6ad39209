"""Random numbers by name: every stream is a function of a seed and of names alone, and no global generator is touched."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Name = str | int
SEEDS_PER_RUN = 1_000_000  # run k draws samples k * 1e6, k * 1e6 + 1, ...: disjoint ranges, as EDM's protocol asks for


def key(seed: int, *names: Name) -> int:
    """128 bits that are another number for each (seed, names): sha256 of their JSON."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, *names]).encode()).digest()[:16], "little")


def generator(seed: int, *names: Name) -> np.random.Generator:
    """The stream of that name: a counter-based generator (Philox), so that resuming is free."""
    return np.random.Generator(np.random.Philox(key=key(seed, *names)))


def normal_like(rng: np.random.Generator, like: Tensor) -> Tensor:
    """Unit normal numbers with shape, dtype and device of `like`; drawn in float64, so that they do not depend on the dtype."""
    return torch.from_numpy(rng.standard_normal(tuple(like.shape))).to(like)


@contextmanager
def seeded(device: torch.device | str, seed: int, *names: Name) -> Iterator[None]:
    """A block in which torch's global generators give this stream (initial weights, dropout); afterwards they are as before."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key(seed, *names) % 2**63)
        yield


class Draw(Protocol):
    """Random numbers of n rows, by name; a name always gives the same numbers."""

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Unit normal numbers, [n, *shape]."""

    def uniform(self, name: str) -> Tensor:
        """Numbers in (0, 1), float64 [n]."""

    def chi_square(self, name: str, degrees: float) -> Tensor:
        """Chi-square numbers with that many degrees of freedom (> 0), float64 [n]."""


class BatchDraws:
    """The draws of some rows of a batch: drawn for the whole batch, so that they depend on no microbatch and no rank.

    On the CPU they come from numpy, on CUDA from a generator of the device, so that no step waits for the host; the two
    give different numbers. On torch's device "meta", which has shapes but no values, they have none either.

    Args:
        seed, names: of the batch; each name of a draw adds to them.
        batch: rows of the whole batch.
        device: of the draws.
    """

    def __init__(self, seed: int, *names: Name, batch: int, device: torch.device | str = "cpu"):
        self.seed, self.names, self.batch, self.device = seed, names, batch, torch.device(device)
        self._rows = slice(None)
        self._whole: dict[Any, Any] = {}

    def part(self, rows: slice) -> "BatchDraws":
        """The same draws, of some rows only."""
        other = BatchDraws(self.seed, *self.names, batch=self.batch, device=self.device)
        other._rows, other._whole = rows, self._whole
        return other

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Unit normal numbers, float32 [n, *shape]."""
        if name not in self._whole:
            size = (self.batch, *shape)
            if self.device.type != "cpu":
                self._whole[name] = torch.randn(size, generator=self._on_device(name), device=self.device)
            else:
                rng = generator(self.seed, *self.names, name)
                self._whole[name] = torch.from_numpy(rng.standard_normal(size, dtype=np.float32))
        return self._whole[name][self._rows]

    def uniform(self, name: str) -> Tensor:
        """Stratified numbers in (0, 1), float64 [n]: in any order, one in each n-th of the interval."""
        if name not in self._whole:
            if self.device.type != "cpu":
                source = self._on_device(name)
                order = torch.randperm(self.batch, generator=source, device=self.device)
                u = torch.rand(self.batch, generator=source, device=self.device, dtype=torch.float64)
            else:
                rng = generator(self.seed, *self.names, name)
                order, u = torch.from_numpy(rng.permutation(self.batch)), torch.from_numpy(rng.random(self.batch))
            self._whole[name] = (order + u.clamp(min=1e-9)) / self.batch
        return self._whole[name][self._rows]

    def chi_square(self, name: str, degrees: float) -> Tensor:
        """Chi-square numbers with that many degrees of freedom (> 0), float64 [n]."""
        if name not in self._whole:
            shape = torch.full((self.batch,), degrees / 2, dtype=torch.float64, device=self.device)
            if self.device.type != "cpu":
                self._whole[name] = 2 * torch._standard_gamma(shape, generator=self._on_device(name))
            else:
                rng = generator(self.seed, *self.names, name)
                self._whole[name] = torch.from_numpy(2 * rng.standard_gamma(shape.numpy()))
        return self._whole[name][self._rows]

    def _on_device(self, name: str) -> torch.Generator | None:
        if self.device.type == "meta":
            return None
        return torch.Generator(self.device).manual_seed(key(self.seed, *self.names, name) % 2**63)


class SampleDraws:
    """The draws of samples: row i is a function of seeds[i] alone, on every machine and device, whatever the batch.

    Args:
        seeds: one integer >= 0 a sample. names: of further draws of the same samples; each name of a draw adds to them.
    """

    def __init__(self, seeds: Iterable[int], *names: Name):
        self.seeds, self.names = list(seeds), names

    def normal(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Unit normal numbers, float64 [n, *shape], on the CPU."""
        rows = [generator(seed, "sample", *self.names, name).standard_normal(shape) for seed in self.seeds]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros((0, *shape), dtype=torch.float64)

    def uniform(self, name: str) -> Tensor:
        """Numbers in (0, 1), float64 [n], on the CPU."""
        rows = [generator(seed, "sample", *self.names, name).uniform(1e-9, 1) for seed in self.seeds]
        return torch.tensor(rows, dtype=torch.float64)

    def chi_square(self, name: str, degrees: float) -> Tensor:
        """Chi-square numbers with that many degrees of freedom (> 0), float64 [n], on the CPU."""
        rows = [2 * generator(seed, "sample", *self.names, name).standard_gamma(degrees / 2) for seed in self.seeds]
        return torch.tensor(rows, dtype=torch.float64)


def unit_noise(seeds: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Unit normal noise, float64 [n, *shape] on the CPU, row i a function of seeds[i] alone."""
    return SampleDraws(seeds).normal("noise", shape)


class DataOrder:
    """The order in which a training meets the rows of a data set: one permutation after the other, without end.

    Args:
        seed, names: of the order.
        count: rows of the data set.
    """

    def __init__(self, seed: int, *names: Name, count: int):
        self.seed, self.names, self.count = seed, names, count
        self._latest: dict[int, np.ndarray] = {}  # the current epoch's permutation: a cache, not state

    def rows(self, position: int, length: int) -> np.ndarray:
        """Rows at positions [position, position + length), int64: a function of the position alone."""
        rows: list[np.ndarray] = []
        while length > 0:
            epoch, offset = divmod(position, self.count)
            rows.append(self._permutation(epoch)[offset : offset + length])
            position, length = position + len(rows[-1]), length - len(rows[-1])
        return np.concatenate(rows)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._latest:
            self._latest = {epoch: generator(self.seed, "order", *self.names, epoch).permutation(self.count)}
        return self._latest[epoch]
