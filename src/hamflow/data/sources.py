"""Data sources and how they are found: a new one is a module of this package with a decorated function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hamflow import draws
from hamflow.errors import ConfigurationError
from hamflow.laws.base import Density
from hamflow.registry import Registry


@dataclass(frozen=True)
class Source:
    """One data set, before it is read.

    Args:
        kind: "image" or "point".
        read: gives (array, labels), always the same: uint8 [N, H, W, C] or float32 [N, D]; int64 [N] or
            None.
        box: (low, high) of every coordinate in model space; contains all the data.
        licence: of the data, "-" where there is none.
        origin: where the data come from, in words.
        class_names: in the order of the labels; empty without classes.
        digest: gives the sha256 of the file that the data come from, once they are read; None where they are computed.
        density: the exact law, where it is known.
    """

    kind: str
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    box: tuple[float, float]
    licence: str
    origin: str
    class_names: tuple[str, ...] = ()
    digest: Callable[[], str] | None = None
    density: Density | None = None


_SOURCES: Registry = Registry("data source", "hamflow.data")
register = _SOURCES.register
names = _SOURCES.names


def build(name: str, options: Mapping[str, Any] | None = None) -> Source:
    """The source of that name with its options (`holdout` is `prepare`'s, not the source's).

    Raises:
        ConfigurationError: an unknown source or option, or a value that cannot be.
    """
    return _SOURCES.build(name, **(options or {}))


def points_of(density: Density, *, count: int, seed: int, box: tuple[float, float], origin: str) -> Source:
    """The source that draws `count` points of a law of `seed`.

    Raises:
        ConfigurationError: a count or seed that is no integer, count < 2, seed < 0.
    """
    for key, value, least in (("count", count, 2), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"option `{key}` = {value!r} is not an integer >= {least}")

    def read() -> tuple[np.ndarray, None]:
        return density.sample(count, draws.generator(seed, "data", "training")).numpy().astype(np.float32), None

    return Source("point", read, box, licence="-", origin=origin, density=density)
