"""hamflow: Hamiltonian generative modelling, from the mechanics to Table 1.

Data are carried along dx/dt = v, dv/dt = F(x, t); a network learns V(x, t) = E[v_t | x_t]; running
dx/dt = V backwards generates. Subpackages are imported on first use, so that `import hamflow` is instant.
"""

import importlib

__version__ = "0.1.0"

_SUBPACKAGES = (
    "config",
    "data",
    "dynamics",
    "equivariant",
    "flows",
    "methods",
    "metrics",
    "networks",
    "parameterisation",
    "report",
    "sampling",
    "score",
    "tracking",
    "training",
)


def __getattr__(name: str):
    if name == "load":
        return importlib.import_module("hamflow.methods").load
    if name in _SUBPACKAGES:
        return importlib.import_module(f"hamflow.{name}")
    raise AttributeError(f"module 'hamflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBPACKAGES, "load"])
