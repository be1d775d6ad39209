"""Estimators of E|E[v | x]|^2 from pairs (x, v) at several times: one a file, found by name."""

from hamflow.score.estimators.base import ESTIMATORS, Estimate

__all__ = ["ESTIMATORS", "Estimate"]
