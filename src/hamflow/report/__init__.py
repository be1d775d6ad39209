"""Tables and figures of a preset; matplotlib is imported only when something is drawn."""

import importlib

_HOMES = {
    "tabulate": "tables",
    "plot_nfe": "nfe",
    "plot_samples": "samples",
    "plot_points": "points",
    "plot_training": "training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"hamflow.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hamflow.report' has no attribute {name!r}")
