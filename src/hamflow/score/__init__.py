"""Score matching, explicit, denoising, implicit and Hamiltonian, and the Hamiltonian score discrepancy.

Names are imported on first use, so that the command line does not wait for torch.
"""

import importlib

_HOME = {
    "explicit": "objectives",
    "denoising": "objectives",
    "implicit": "objectives",
    "sliced": "objectives",
    "hamiltonian": "objectives",
    "gain": "objectives",
    "ScoreField": "fields",
    "VelocityPredictor": "fields",
    "Discrepancy": "discrepancy",
    "hamiltonian_score_discrepancy": "discrepancy",
    "model_discrepancy": "model",
    "Tournament": "tournament",
    "hold_tournament": "tournament",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"hamflow.score.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hamflow.score' has no attribute {name!r}")
