"""The papers' experiments that are no row of Table 1. Each is one file: settings, `run(settings)`, `draw(result, output)`.

A result holds plain values and is a function of the settings, which are in it under `spec`; but for `training`, where there is
one: how long that took.
"""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hamflow.errors import ConfigurationError, nearest

SHARED = {"base", "densities", "figure"}  # the modules that are no study


def names() -> list[str]:
    """The studies, by the files of this folder."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - SHARED)


def get(name: str, where: str = "studies") -> ModuleType:
    """The module of a study. Raises ConfigurationError, naming the nearest."""
    if name not in names():
        raise ConfigurationError(f"`{where}`: there is no study '{name}'", fix=nearest(name, names()))
    return importlib.import_module(f"{__name__}.{name}")


def run(name: str, settings: dict[str, Any], memory: Path | None = None) -> dict[str, Any]:
    """The result of a study. memory: a file from which one goes on that was interrupted, if it can (`RESUMES`)."""
    module = get(name)
    return module.run(settings, memory) if getattr(module, "RESUMES", False) else module.run(settings)


def about(name: str) -> str:
    """The first paragraph of a study's file, which says what it shows; the file is not imported."""
    text = ast.get_docstring(ast.parse(Path(__path__[0], f"{name}.py").read_text(encoding="utf-8"))) or name
    return " ".join(text.partition("\n\n")[0].split())
