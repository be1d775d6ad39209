"""Distances between samples and data: feature networks, Fréchet, kernel and point-set metrics."""

from hamflow.metrics.frechet import frechet_distance, frechet_distance_of
from hamflow.metrics.kernel import kernel_distance, mmd, squared_mmd
from hamflow.metrics.points import negative_log_likelihood, sliced_w2, support_fraction, w2

__all__ = [
    "frechet_distance",
    "frechet_distance_of",
    "kernel_distance",
    "mmd",
    "negative_log_likelihood",
    "sliced_w2",
    "squared_mmd",
    "support_fraction",
    "w2",
]
