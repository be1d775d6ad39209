"""Running a velocity field backwards: solvers, time grids, budgets."""

import importlib

from hamflow.sampling.budget import names, nfe_of, steps_for

__all__ = ["count_evaluations", "names", "nfe_of", "solve", "steps_for", "time_grid"]

_HOMES = {"solve": "solvers", "count_evaluations": "solvers", "time_grid": "grids"}


def __getattr__(name: str):  # torch is imported only by those who integrate: the parameters are checked without it
    if name in _HOMES:
        return getattr(importlib.import_module(f"hamflow.sampling.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hamflow.sampling' has no attribute {name!r}")
