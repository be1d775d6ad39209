"""The figures of a preset that show its runs: each module of this folder is a kind, with the functions of `Figure`."""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

Parameters = Mapping[str, Any]


class Figure(Protocol):
    """A kind of figure; its module imports torch, matplotlib and pandas only when it draws."""

    def names(self, parameters: Parameters) -> list[str]:
        """The figures of this kind that a preset has: names of files without their ending."""

    def inputs(self, parameters: Parameters, name: str) -> dict[str, list[Path] | Path]:
        """The artefacts that a figure shows."""

    def caption(self, parameters: Parameters, name: str) -> str:
        """What stands below it in the report, reStructuredText."""

    def draw(self, parameters: Parameters, name: str, output: Path) -> None:
        """Write the .png, and a .pdf beside it."""


def kinds() -> list[Figure]:
    """Every kind of figure, by the files of this folder."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in modules]
