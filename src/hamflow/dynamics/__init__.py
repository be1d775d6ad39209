"""Mechanics: force fields, symplectic integrators, and the motions that have a closed form."""

from hamflow.dynamics.forces import ElasticBox, Gradient, Harmonic, zero
from hamflow.dynamics.integrators import SCHEMES, compose, simulate
from hamflow.dynamics.motion import broadcast, drift, fold, rotate

__all__ = [
    "SCHEMES",
    "ElasticBox",
    "Gradient",
    "Harmonic",
    "broadcast",
    "compose",
    "drift",
    "fold",
    "rotate",
    "simulate",
    "zero",
]
