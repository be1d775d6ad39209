"""Distances between samples and data: feature networks, Fréchet, kernel and point-set metrics."""

from hamflow.metrics.frechet import frechet_distance, frechet_distance_of
from hamflow.metrics.kernel import kernel_distance, kernel_distance_error, mmd, squared_mmd, squared_mmd_error
from hamflow.metrics.neighbours import density_coverage, memorised, nearest, precision_recall, radii
from hamflow.metrics.paired import Interval, Resampled, frechet_difference, interval, resampled_frechet
from hamflow.metrics.points import negative_log_likelihood, sliced_w2, support_fraction, w2

__all__ = [
    "Interval",
    "Resampled",
    "density_coverage",
    "frechet_difference",
    "frechet_distance",
    "frechet_distance_of",
    "interval",
    "kernel_distance",
    "kernel_distance_error",
    "memorised",
    "mmd",
    "nearest",
    "negative_log_likelihood",
    "precision_recall",
    "radii",
    "resampled_frechet",
    "sliced_w2",
    "squared_mmd",
    "squared_mmd_error",
    "support_fraction",
    "w2",
]
