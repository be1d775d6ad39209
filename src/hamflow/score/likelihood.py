"""The exact likelihood that a trained flow gives to data: a metric of the model itself, for which no sample is drawn."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from hamflow import draws
from hamflow.errors import NotOffered
from hamflow.registry import Count, Options, convert
from hamflow.sampling.likelihood import bits_per_dimension, dequantise

BITS, NATS = "bits_per_dimension", "data_nll"
LEVEL = 2 / 255  # the width of a grey level, data units


class LikelihoodSpec(Options, kw_only=True, frozen=True):
    """How likelihoods are measured: `metrics.likelihood`."""

    samples: Annotated[int, Meta(ge=2)] = 500  # data
    steps: Count = 25  # of rk4, four evaluations each with their backward passes
    probes: Annotated[int, Meta(ge=2)] | None = None  # random signs for a trace; None: exact up to 16 coordinates, else 8
    batch: Count = 250  # data at a time
    seed: Annotated[int, Meta(ge=0)] = 0  # of the choice of data, dequantisation and probes


def likelihood_of(settings: Mapping[str, Any], model: Any, dataset: Any, device: Any) -> dict[str, dict[str, Any]]:
    """The mean of -log p, as a metric: bits a dimension of dequantised images, nats of points; none of a model without it.

    The data are held-out ones, or fresh ones of the law of points where it is known, or else, where nothing was held out,
    training data; `features` says which. The standard error is over the data, and holds the noise of the probes.

    Args:
        settings: of `LikelihoodSpec`. model: a `hamflow.methods.Generator`. dataset: a `hamflow.data.Dataset`, prepared.
    Raises:
        ConfigurationError: a key or value that cannot be.
    Source: theory 6.6.
    """
    spec = convert(LikelihoodSpec, settings, "metrics.likelihood")
    if not (hasattr(model, "velocity") and hasattr(model, "log_density")):  # other kinds have bounds at most
        return {}
    with suppress(NotOffered):
        x, label, origin = _data(spec, model, dataset)
        image = dataset.kind == "image"
        x = dequantise(x, LEVEL, spec.seed) if image else x.double()
        values = torch.cat(list(_log_densities(spec, model, x, label, device)))
        values = bits_per_dimension(values, x[0].numel(), LEVEL) if image else -values
        error = float(values.std()) / len(values) ** 0.5
        row = {"value": float(values.mean()), "standard_error": error, "n": len(values), "features": origin}
        return {BITS if image else NATS: row}
    return {}


def _log_densities(spec: LikelihoodSpec, model: Any, x: Tensor, label: Tensor | None, device: Any) -> Any:
    density = model.log_density
    for start in range(0, len(x), spec.batch):
        part = slice(start, start + spec.batch)
        labels = None if label is None else label[part].to(device)
        options = {"steps": spec.steps, "probes": spec.probes, "seed": spec.seed + start}
        yield density(x[part].to(device), labels, **options).values.cpu()


def _data(spec: LikelihoodSpec, model: Any, dataset: Any) -> tuple[Tensor, Tensor | None, str]:
    rng, law = draws.generator(spec.seed, "likelihood", "rows"), dataset.density()
    if law is not None and not model.classes:
        return law.sample(spec.samples, rng), None, "law"
    held_out = bool(dataset.manifest["split"]["test"])
    part = dataset.test() if held_out else dataset
    picked = np.sort(rng.choice(part.count, size=min(spec.samples, part.count), replace=False))
    x, label = part.batch(picked)
    return x, label if model.classes else None, "held-out data" if held_out else "training data"
