"""The discrepancy of the score that a trained generative model implies."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, field
from torch import Tensor, nn

from hamflow import draws
from hamflow.dynamics import SCHEMES
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.registry import Count, NotNegative, Options, Positive, convert
from hamflow.score.discrepancy import Discrepancy, hamiltonian_score_discrepancy

Denoiser = Callable[[Tensor, float], Tensor]  # (y, sigma) -> E[x_0 | x_0 + sigma n = y]
SCHEME = "mclachlan"


class ModelSpec(Options, kw_only=True, frozen=True):
    """How the discrepancy of a trained model is measured."""

    sigmas: tuple[Positive, ...] = (0.1, 0.3, 1.0)  # noise levels, data units
    horizon: Positive = 1.0  # T / sigma
    times: Count = 4  # how many in (0, T]
    samples: Annotated[int, Meta(ge=8)] = 10_000  # of the data
    steps: Count = 4  # of integration to T, see `score_discrepancy`
    scheme: Literal[tuple(SCHEMES)] = SCHEME  # type: ignore[valid-type]  # the names of a table
    estimator: str | None = None  # see `hamflow.score.estimators`; None: its default
    # of the estimator, by kind of data; a key `estimator` there names another one
    options: dict[Literal["image", "point"], dict[str, Any]] = field(default_factory=dict)
    batch: Count = 1024  # network evaluations at a time
    seed: Annotated[int, Meta(ge=0)] = 0  # of noise, velocities and critics
    # Every weight of the network is first changed by so many of its tensor's root mean squares, times a normal number: what the
    # discrepancy of a spoilt model is; 0: the model as it is.
    perturbation: NotNegative = 0.0
    about: dict[str, Any] = field(default_factory=dict)  # what the result says of itself: preset, dataset, method, label, ...

    def __post_init__(self) -> None:
        for kind, options in self.options.items():
            if reserved := sorted(options.keys() & set(self.__struct_fields__) - {"estimator"}):
                raise ValueError(f"has `options.{kind}` with `{reserved[0]}`, which is no estimator's")


def model_discrepancy(
    denoiser: Denoiser, data: Tensor, sigma: float, *, horizon: float = 1.0, times: int = 4, **options: Any
) -> Discrepancy:
    """The discrepancy of F(x) = (D(x; sigma) - x) / sigma^2 on x_0 = data + sigma n: zero if the model is right (Tweedie).

    Lengths are measured in sigma: y = x / sigma has the force sigma F, the time t / sigma, v_0 ~ N(0, I) as before and the same
    discrepancy, a number without unit. The log-density of x has no curvature beyond 1 / sigma^2, so that horizon = 1,
    T = sigma, stays short of the first blind spot (omega T <= 1 < pi/2). To leading order the average over [0, T] is
        (horizon^2 / 3) sigma^2 E|F - score|^2 / dimension = (horizon^2 / 3) E|D - D*|^2 / (sigma^2 dimension).

    Args:
        denoiser: (y, sigma) -> D, like y. data: [N, *dims], data units. sigma: noise level, data units, > 0.
        horizon: T / sigma. times: how many, evenly spaced up to T. options: see `score_discrepancy`.
    Returns:
        values per coordinate, times in units of sigma.
    Source: [derived] theory 3.5; Robbins 1956 for the implied score.
    """
    noise = smoothing_noise(options.get("seed", 0), data)
    force = lambda x, t: (denoiser(x, sigma) - x) / sigma**2  # noqa: E731
    return score_discrepancy(force, data + sigma * noise, sigma, horizon=horizon, times=times, **options)


def smoothing_noise(seed: int, x: Tensor) -> Tensor:
    """The unit normal noise that smooths data x, shaped like them."""
    return draws.normal_like(draws.generator(seed, "discrepancy", "noise"), x)


def score_discrepancy(
    force: Force,
    samples: Tensor,
    sigma: float,
    *,
    horizon: float = 1.0,
    times: int = 4,
    estimator: str | None = None,
    steps: int | None = 4,
    scheme: str = SCHEME,
    **options: Any,
) -> Discrepancy:
    """The discrepancy of a score at noise level sigma, per coordinate, times in units of sigma.

    The defaults spend few evaluations, since each may be one of a network. Where the data hardly vary on the scale of sigma,
    the smoothed law is N(x, sigma^2 I), and x oscillates through omega T = horizon. An integrator does not quite keep that law,
    which looks like a discrepancy of the score: at horizon 1, three steps of leapfrog 1.2e-4 a coordinate, two of McLachlan's
    scheme, at no more evaluations, 1.0e-8.

    Args:
        force: the score, data units^-1. samples: of the smoothed data, [N, *dims], in random order. steps: None: as many as the
            accuracy needs. estimator, options: of `hamiltonian_score_discrepancy`.
    """
    for name, value in (("sigma", sigma), ("horizon", horizon)):
        if not 0 < value < float("inf"):
            raise ConfigurationError(f"`{name}` must be a number > 0, got {value}")
    dimension = samples[0].numel()
    found = hamiltonian_score_discrepancy(
        force,
        samples,
        sigma * horizon * np.arange(1, times + 1) / times,
        estimator=estimator,
        steps=steps,
        scheme=scheme,
        **options,
    )
    curves, means = ("values", "standard_errors", "integration_errors"), ("", "_standard_error", "_integration_error")
    each = {name: getattr(found, name) / dimension for name in (*curves, *(f"average{what}" for what in means))}
    return replace(found, times=found.times / sigma, **each)


def implied_score(model: Any, sigma: float, label: Tensor | None = None, batch: int = 1024) -> Force:
    """The score at noise level sigma that a `hamflow.methods.Generator` implies, as a force on samples of the smoothed data.

    By Tweedie's formula (D(x; sigma) - x) / sigma^2; where the flow's space has walls, so has the force.

    Args:
        label: int64 [N], classes of the samples, for a conditional model: row i has label i, in every call of the force.
        batch: rows in the network at a time.
    """

    def force(x: Tensor, t: float | Tensor) -> Tensor:
        parts = [
            model.score(x[i : i + batch], sigma, None if label is None else label[i : i + batch][: len(x) - i])
            for i in range(0, len(x), batch)
        ]
        return torch.cat(parts)

    return model.flow.confine(force) if hasattr(model, "flow") else force


def implied_denoiser(model: Any, label: Tensor | None = None, batch: int = 1024) -> Denoiser:
    """The denoiser of a `hamflow.methods.Generator` that has one; label and batch as of `implied_score`."""

    def denoise(y: Tensor, sigma: float) -> Tensor:
        parts = [
            model.denoise(y[i : i + batch], sigma, None if label is None else label[i : i + batch][: len(y) - i])
            for i in range(0, len(y), batch)
        ]
        return torch.cat(parts)

    return denoise


def metrics_of(settings: Mapping[str, Any], model: Any, dataset: Any, device: Any) -> dict[str, dict[str, Any]]:
    """The discrepancy of a model at every noise level, as metrics `hsd@sigma=...`; its weights are perturbed in place.

    A model without a score has none, and one whose score is of one noise level has that of this level.

    Raises:
        ConfigurationError: a key or value that cannot be.
        DivergenceError: the implied score drives trajectories out of the finite numbers.
    """
    spec = convert(ModelSpec, settings, "metrics.hsd")
    if not hasattr(model, "score"):
        return {}
    perturb(model.module, spec.perturbation, spec.seed)
    count = min(spec.samples, dataset.count)
    picked = draws.generator(spec.seed, "discrepancy", "rows").choice(dataset.count, size=count, replace=False)
    x, label = dataset.batch(picked)
    x, label = x.to(device), label.to(device) if model.classes and label is not None else None
    options = spec.options.get(dataset.kind, {})
    metrics = {}
    for sigma in spec.sigmas:
        with suppress(NotOffered):
            model.score(x[:1], sigma, None if label is None else label[:1])
            metrics[f"hsd@sigma={sigma:g}"] = _metric(spec, model, x, label, sigma, options)
    return metrics


@torch.no_grad()
def perturb(network: nn.Module, size: float, seed: int = 0) -> None:
    """Add size * root mean square of the tensor * normal numbers to every weight, in place; a function of the seed.

    Raises:
        ConfigurationError: size < 0, or no number.
    """
    if not 0 <= size < float("inf"):
        raise ConfigurationError(f"`perturbation` must be a number >= 0, got {size}")
    rng = draws.generator(seed, "perturbation")
    for weight in network.parameters():
        weight.add_(size * weight.square().mean().sqrt() * draws.normal_like(rng, weight))


@torch.no_grad()
def _metric(
    spec: ModelSpec, model: Any, x: Tensor, label: Tensor | None, sigma: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    noise = smoothing_noise(spec.seed, x)
    noisy = model.flow.settle(x + sigma * noise) if hasattr(model, "flow") else x + sigma * noise
    force = implied_score(model, sigma, label, spec.batch)
    with torch.enable_grad():  # the critic of an estimator is trained; the model is not
        found = score_discrepancy(
            force,
            noisy,
            sigma,
            horizon=spec.horizon,
            times=spec.times,
            steps=spec.steps,
            scheme=spec.scheme,
            seed=spec.seed,
            batch=len(noisy),  # all at once: the labels of a conditional model belong to rows
            **{"estimator": spec.estimator, **options},
        )
    return {
        "value": found.average,
        "standard_error": found.average_standard_error,
        "integration_error": found.average_integration_error,
        "n": found.n,
        "features": found.estimator,
        "curve": {"times": found.times.tolist(), "values": found.values.tolist(), "errors": found.standard_errors.tolist()},
    }
