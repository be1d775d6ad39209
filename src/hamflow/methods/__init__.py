"""Kinds of method, one a file: what is trained, and what a trained thing can do."""

import importlib

_HOME = {
    "METHODS": "base",
    "Facts": "base",
    "Generator": "base",
    "Method": "base",
    "Sampling": "base",
    "check_belongs": "base",
    "load": "base",
}


def __getattr__(name: str):  # torch is imported only by those who train or generate
    if name in _HOME:
        return getattr(importlib.import_module(f"hamflow.methods.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hamflow.methods' has no attribute {name!r}")
