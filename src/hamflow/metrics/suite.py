"""The metrics of the tables by name. A new one is a function of a `Comparison` under a decorator that describes it."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hamflow.laws.base import Density
from hamflow.metrics import neighbours, points
from hamflow.metrics.frechet import frechet_distance, frechet_distance_of
from hamflow.metrics.kernel import kernel_distance, kernel_distance_error, mmd
from hamflow.metrics.moments import moments_of
from hamflow.metrics.paired import resampled_frechet
from hamflow.metrics.reference import KERNEL_ROWS, Reference, thin

FEWEST_ROWS = 2
FEWEST_FOR_ERROR = 4  # of the kernel distance
NEIGHBOURS = 5  # of density and coverage (Naeem et al. 2020); precision and recall have 3 (Kynkaanniemi et al. 2019)
MEMORISATION = "memorisation"  # among the metrics that may be asked for
PAIRS = 16  # of a sample and its nearest training image, the nearest of all, in a record
Value = float | Mapping[str, Any] | None


@dataclass(frozen=True)
class Comparison:
    """Samples beside the reference that they are compared with.

    Args:
        kind: "image" or "point".
        features: name of the feature network, or "points".
        suffix: of the metrics' names.
        samples: [n, d]: features, or the points themselves.
        reference: statistics of the data in the same features.
        density: exact law of the data, where it is known.
        names: how the literature calls metrics under these features, see `FeatureNetwork`.
        more: the optional metrics that are asked for.
    """

    kind: str
    features: str
    suffix: str
    samples: np.ndarray
    reference: Reference
    density: Density | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    more: frozenset[str] = frozenset()

    @cached_property
    def manifold(self) -> tuple[float, float, float, float] | None:
        """Precision, recall, density and coverage of at most 10,000 rows a side; None of too few for neighbours."""
        samples, real = thin(self.samples), thin(self.reference.rows)
        if min(len(samples), len(real)) <= NEIGHBOURS:
            return None
        return (*neighbours.precision_recall(samples, real), *neighbours.density_coverage(samples, real, NEIGHBOURS))

    @cached_property
    def frechet(self) -> float:
        """Fréchet distance, squared feature units."""
        n, d = self.samples.shape
        if n < d and len(self.reference.rows) == self.reference.n:
            return frechet_distance_of(self.samples, self.reference.rows)
        moments = moments_of(self.samples)
        reference = self.reference
        return frechet_distance(reference.mean, reference.covariance, moments.mean, moments.covariance)


class About(NamedTuple):
    """How tables and figures speak of a metric.

    Fields:
        label: in words; with `unit`, if it has one.
        short: the head of a column.
        better: "lower", "higher", or what a good value does instead ("should equal the bound's").
        rank: of the metrics that a data set has, the one of the lowest rank speaks for it.
    """

    label: str
    short: str
    unit: str = ""
    better: str = "lower"
    rank: float = float("inf")

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


Metric = Callable[[Comparison], Value]
_METRICS: dict[tuple[str, str, str], Metric] = {}
_ABOUT: dict[str, About] = {  # of metrics that no function here computes: the paper's, and the discrepancy of a model
    "fid": About("FID", "FID", rank=0),
    "clean_fid": About("FID with clean-fid's resizing", "clean FID", rank=0.5),
    "{suffix}fid_relative": About("FID / trace of the data's covariance", "FID / trace"),
    "{suffix}kid": About("KID (unbiased)", "KID"),
    "hsd@sigma={suffix}": About("Hamiltonian score discrepancy", "HSD", "a coordinate"),
    "bits_per_dimension": About("negative log-likelihood of images", "bits", "bits a dimension"),
    "data_nll": About("negative log-likelihood of data", "NLL of data", "nats"),
}


def register(
    kind: str, name: str, label: str = "", short: str = "", only: str = "", **about: Any
) -> Callable[[Metric], Metric]:
    """Decorator: a metric of images or of points; `{suffix}` in its name stands for the feature network.

    The function gives a value; or a mapping of `value` and further columns (`n`, if it is not that of all
    samples); or None where the metric does not apply.

    Args:
        kind: "image" or "point".
        name: in the metrics JSON.
        only: measured where `evaluation.more` of the parameters has this name; by default always.
        label, short, about: see `About`; by default the name.
    """

    def enter(metric: Metric) -> Metric:
        _METRICS[kind, name, only] = metric
        _ABOUT.setdefault(name, About(label or name.replace("_", " "), short or label or name, **about))
        return metric

    return enter


def about(name: str) -> About:
    """Label, unit and direction of the metric of that name; a metric that nobody registered is described by its name."""
    for pattern in sorted(_ABOUT, key=len, reverse=True):  # fd_{suffix}_relative before fd_{suffix}
        if re.fullmatch(re.escape(pattern).replace(re.escape("{suffix}"), ".*"), name):
            return _ABOUT[pattern]
    return About(name, name)


def headline(names: Collection[str]) -> str:
    """The metric that speaks for a data set, of those it has."""
    return min(names, key=lambda name: (about(name).rank, name))


def optional() -> list[str]:
    """The names that `evaluation.more` may have."""
    return sorted({only for *_, only in _METRICS if only})


def measure(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Every metric that applies: {name: {"value", "n", "features", ...}}; n samples were used.

    Fewer than two samples or data have no covariance: then every value is None.
    """
    few = min(len(comparison.samples), comparison.reference.n) < FEWEST_ROWS
    measured = {}
    for (kind, name, only), metric in _METRICS.items():
        if kind != comparison.kind or only not in {"", *comparison.more}:
            continue
        value = None if few else metric(comparison)
        if value is not None or few:
            row = dict(value) if isinstance(value, Mapping) else {"value": value}
            common = {"n": len(comparison.samples), "features": comparison.features}
            measured[comparison.names.get(name, name.format(suffix=comparison.suffix))] = {**common, **row}
    return measured


@register("image", "fd_{suffix}", "Fréchet distance", "FD", rank=1)
def fd(comparison: Comparison) -> Value:
    """Fréchet distance; biased upwards by about 1/n: compare equal n only."""
    return comparison.frechet


@register("image", "fd_{suffix}", only="paired")
def fd_resampled(comparison: Comparison) -> Value:
    """The same; `resampled`: the distance of each resample, for paired differences of methods."""
    reference = comparison.reference
    drawn = resampled_frechet(comparison.samples, reference.mean, reference.covariance).draws
    return {"value": comparison.frechet, "resampled": drawn.tolist()}


@register("image", "fd_{suffix}_relative", "Fréchet distance / trace of the data's covariance", "FD / trace")
def fd_relative(comparison: Comparison) -> Value:
    """Fréchet distance / trace of the reference covariance: in units of the data's own spread."""
    return comparison.frechet / comparison.reference.trace


@register("image", "kd_{suffix}", "kernel distance (unbiased)", "KD")
def kd(comparison: Comparison) -> Value:
    """Unbiased kernel distance; may be negative."""
    samples = thin(comparison.samples)
    return {"value": kernel_distance(samples, thin(comparison.reference.rows)), "n": len(samples)}


@register("image", "kd_{suffix}", only="kernel_error")
def kd_with_error(comparison: Comparison) -> Value:
    """The same with its standard error, of both finite sets."""
    samples, real = thin(comparison.samples), thin(comparison.reference.rows)
    if min(len(samples), len(real)) < FEWEST_FOR_ERROR:
        return kd(comparison)
    error = kernel_distance_error(samples, real)
    return {"value": kernel_distance(samples, real), "standard_error": error, "n": len(samples)}


def _one_of_manifold(place: int) -> Metric:
    """A metric that is one of the four of `Comparison.manifold`."""

    def metric(comparison: Comparison) -> Value:
        found = comparison.manifold
        return None if found is None else {"value": found[place], "n": min(len(comparison.samples), KERNEL_ROWS)}

    return metric


MANIFOLD = (  # name, label, where it is asked for, which way is better
    ("precision", "improved precision", "precision_recall", "higher"),  # share of the samples among the data
    ("recall", "improved recall", "precision_recall", "higher"),  # share of the data among the samples
    ("density", "density", "density_coverage", "should equal the bound's"),  # data near a sample, over their expectation
    ("coverage", "coverage", "density_coverage", "higher"),  # share of the data with a sample near
)
for _place, (_name, _label, _asked, _better) in enumerate(MANIFOLD):
    register("image", f"{_name}_{{suffix}}", _label, _name, only=_asked, better=_better)(_one_of_manifold(_place))


@register(
    "image",
    "memorised_{suffix}",
    "share of samples nearer to a training image than 99% of fresh images",
    "memorised",
    only=MEMORISATION,
    better="should be .01",
)
def memorised(comparison: Comparison) -> Value:
    """Share of copies: fresh are held-out images, or, where there are none, each training image against all others.

    `nearest`: the pairs of the smallest distances, [sample, training image, distance].
    """
    reference, found = comparison.reference, neighbours.nearest(comparison.samples, comparison.reference.rows)
    fresh = reference.held_out if reference.held_out is not None else neighbours.nearest(reference.rows).distance
    pairs = [[int(i), int(found.place[i]), float(found.distance[i])] for i in found.distance.argsort(kind="stable")[:PAIRS]]
    return {"value": neighbours.memorised(found.distance, fresh), "n_fresh": len(fresh), "nearest": pairs}


@register("point", "w2", "Wasserstein-2 distance", "W2", unit="data units", rank=2)
def exact_w2(comparison: Comparison) -> Value:
    """Wasserstein-2 distance by the best assignment, data units."""
    if len(comparison.samples) > points.EXACT_LIMIT:
        return None
    return points.w2(comparison.samples, comparison.reference.rows)


@register("point", "sliced_w2", "sliced Wasserstein-2 distance", "sliced W2", unit="data units", rank=3)
def sliced_w2(comparison: Comparison) -> Value:
    """Its sliced form, where there are too many points for the best assignment."""
    if len(comparison.samples) <= points.EXACT_LIMIT:
        return None
    return points.sliced_w2(comparison.samples, comparison.reference.rows)


@register("point", "mmd", "squared MMD (unbiased)", "MMD")
def squared_mmd(comparison: Comparison) -> Value:
    """Unbiased squared maximum mean discrepancy with Gaussian kernels; may be negative."""
    return mmd(comparison.samples, comparison.reference.rows)


@register("point", "nll", "negative log-likelihood", "NLL", unit="nats", better="should equal the bound's")
def nll(comparison: Comparison) -> Value:
    """Mean exact -log density of the samples, nats."""
    if comparison.density is None:
        return None
    return points.negative_log_likelihood(comparison.samples, comparison.density)


@register("point", "support", "fraction on the support", "support", better="higher")
def support(comparison: Comparison) -> Value:
    """Fraction of the samples where the data's density is positive, if it vanishes anywhere."""
    if comparison.density is None or not comparison.density.bounded:
        return None
    return points.support_fraction(comparison.samples, comparison.density)
