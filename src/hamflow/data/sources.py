"""Data sources and how they are found: a new one is a module of this package with a decorated function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from hamflow import draws
from hamflow.laws.base import Density
from hamflow.registry import Fraction, Registry, convert

Rows = Annotated[int, Meta(ge=2)]  # how many a source makes
Seed = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class Source:
    """One data set, before it is read.

    Args:
        kind: "image" or "point".
        read: gives (array, labels), always the same: uint8 [N, H, W, C] or float32 [N, D]; int64 [N] or
            None.
        shape: of one datum in model space, (C, H, W) or (D,), where the options tell it.
        box: (low, high) of every coordinate in model space; contains all the data.
        licence: of the data, "-" where there is none.
        origin: where the data come from, in words.
        class_names: gives the names in the order of the labels; none without classes.
        digest: gives the sha256 of the file that the data come from, once they are read; None where they are computed.
        density: the exact law, where it is known.
        held_out: gives which rows the source keeps for tests, bool [N], or None where it does not say.
        contents: gives what the manifest says of the files that were read, and of those that were not.
    """

    kind: str
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    box: tuple[float, float]
    licence: str
    origin: str
    class_names: Callable[[], tuple[str, ...]] = tuple
    digest: Callable[[], str] | None = None
    density: Density | None = None
    shape: tuple[int, ...] | None = None
    held_out: Callable[[], np.ndarray | None] | None = None
    contents: Callable[[], dict[str, Any]] = dict


_SOURCES: Registry = Registry("data source", "hamflow.data")
register = _SOURCES.register
names = _SOURCES.names


def build(name: str, options: Mapping[str, Any] | None = None, where: str = "") -> Source:
    """The source of that name with its options, not yet read.

    Args:
        where: the key of the parameters at which source and options stand.
    Raises:
        ConfigurationError: an unknown source or option, or a value that cannot be.
    """
    source = _SOURCES.get(name, f"{where}source")
    _SOURCES.check(name, options or {}, f"{where}options")
    return source(**(options or {}))


def build_split(name: str, options: Mapping[str, Any], where: str = "") -> tuple[Source, float]:
    """The source and the option `holdout`, which every source has: the fraction of the rows that is the test part."""
    rest = dict(options)
    holdout = convert(Fraction, rest.pop("holdout", 0.0), f"{where}options.holdout")
    return build(name, rest, where), holdout


def points_of(density: Density, *, count: int, seed: int, box: tuple[float, float], origin: str) -> Source:
    """The source that draws `count` points of a law with the training stream of `seed`."""

    def read() -> tuple[np.ndarray, None]:
        return density.sample(count, draws.generator(seed, "data", "training")).numpy().astype(np.float32), None

    return Source("point", read, box, licence="-", origin=origin, density=density)
