"""Scores compared without samples: models as each other's critics, and their denoising losses on the same noise."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hamflow import draws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.registry import convert
from hamflow.score.discrepancy import average_weights, check_times
from hamflow.score.integration import antithetic_trajectories
from hamflow.score.model import SCHEME, Denoiser, ModelSpec, implied_denoiser, smoothing_noise

LEAST = 8  # samples


class Paired(NamedTuple):
    """Differences of row less column on the same samples, and their standard errors, both [M, M]."""

    values: np.ndarray
    standard_errors: np.ndarray


@dataclass(frozen=True)
class Tournament:
    """M models at one noise level, on N samples of the data and of the noise that are the same for all.

    To leading order both tables of differences estimate one thing, the difference of the models' score errors: with
    e = sigma^2 E|s - s*|^2 a coordinate, `loss_differences` has e_A - e_B and `duel_differences` (horizon^2 / 3) (e_A - e_B).

    Attributes:
        names: of the models. sigma: noise level, data units. horizon: T / sigma.
        losses: |D - x_0|^2 / sigma^2 a coordinate, [M, N].
        gains: the discrepancy of model A that model B as critic finds, a coordinate, by sample, [M (A), M (B), N].
        bounds: the same with one factor on the critic, fitted on the other half of the samples, [M, M, N]: lower bounds of the
            discrepancy of A in expectation, the best rival's the sharpest.
    """

    names: tuple[str, ...]
    sigma: float
    horizon: float
    losses: np.ndarray
    gains: np.ndarray
    bounds: np.ndarray

    @property
    def n(self) -> int:
        """Independent samples."""
        return self.losses.shape[1]

    @property
    def loss_differences(self) -> Paired:
        """Of the denoising losses."""
        return _paired(self.losses[:, None] - self.losses[None])

    @property
    def duel_differences(self) -> Paired:
        """(A judged by B, less B judged by A) / 2: antisymmetric."""
        return _paired(self._duels)

    @property
    def standings(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean of each model's duels with all models, and its standard error, [M] each: lower is better."""
        means = self._duels.mean(1)
        return means.mean(1), means.std(1, ddof=1) / self.n**0.5

    def rival_bound(self, name: str) -> tuple[str, float, float]:
        """(the rival that finds most, the lower bound of the discrepancy of a model that it gives, its standard error).

        The rival is chosen on the samples that judge it, which makes the bound of many equal rivals a little too large.
        """
        found = _paired(self.bounds[self.names.index(name)][:, None])
        best = int(found.values[:, 0].argmax())
        return self.names[best], float(found.values[best, 0]), float(found.standard_errors[best, 0])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        place, error = self.standings
        tables = {"loss_differences": self.loss_differences, "duel_differences": self.duel_differences}
        return {
            "models": list(self.names),
            "sigma": self.sigma,
            "horizon": self.horizon,
            "n": self.n,
            "denoising_loss": self.losses.mean(1).tolist(),
            "standing": {"values": place.tolist(), "standard_errors": error.tolist()},
            "rival_bound": [
                dict(zip(("rival", "value", "standard_error"), self.rival_bound(name), strict=True)) for name in self.names
            ],
            **{key: {part: x.tolist() for part, x in table._asdict().items()} for key, table in tables.items()},
        }

    @property
    def _duels(self) -> np.ndarray:
        return (self.gains - self.gains.transpose(1, 0, 2)) / 2


@torch.no_grad()
def hold_tournament(
    denoisers: Mapping[str, Denoiser],
    data: Tensor,
    sigma: float,
    *,
    horizon: float = 1.0,
    times: int = 2,
    steps: int = 2,
    scheme: str = SCHEME,
    seed: int = 0,
) -> Tournament:
    """Compare what models say of the score of data smoothed by sigma n, each by all others.

    Any predictor gives a lower bound of the discrepancy of a force s_A. The predictor V = t (s_A - s_B) of a second score s_B
    gives t^2 (E|s_A - s*|^2 - E|s_B - s*|^2) + O(t^4): no critic is trained, and the unknown s* cancels between A and B.

    Args:
        denoisers: name -> (y, sigma) -> D, like y; row i of a call is sample i.
        data: [N, *dims], data units, in random order and best not those that the models were trained on.
        sigma: noise level, data units, > 0. horizon: T / sigma. times: how many, evenly spaced up to T.
        steps, scheme: of the integration to T. seed: of noise and velocities.
    Raises:
        ConfigurationError: fewer than two models or eight samples, a noise level or horizon that cannot be.
        DivergenceError: a model drives trajectories out of the finite numbers.
    Source: theory 2.9, 3.6.
    """
    _check(denoisers, data, sigma, horizon)
    names, dimension = tuple(denoisers), data[0].numel()
    grid = check_times(sigma * horizon * np.arange(1, times + 1) / times, single_time=True)
    weights = average_weights(grid)
    noise = smoothing_noise(seed, data)
    noisy = data + sigma * noise
    v = draws.normal_like(draws.generator(seed, "tournament", "velocities"), data)
    losses = [_rows(denoisers[name](noisy, sigma) - data) / (sigma**2 * dimension) for name in names]
    gains, bounds = np.empty((2, len(names), len(names), len(data)))
    for a, name in enumerate(names):
        force = lambda y, t, d=denoisers[name]: (d(y, sigma) - y) / sigma**2  # noqa: E731
        x_t, v_t = antithetic_trajectories(force, noisy, v, grid, steps, scheme, len(noisy))
        own = [[denoisers[name](x, sigma) for x in both.chunk(2)] for both in x_t]
        for b, rival in enumerate(names):
            products, squares = np.zeros((2, len(data)))
            for j, t in enumerate(grid):
                for x, w, d in zip(x_t[j].chunk(2), v_t[j].chunk(2), own[j], strict=True):
                    critic = (d - denoisers[rival](x, sigma)) * (float(t) / sigma**2)
                    products += weights[j] / 2 * _rows(critic, w) / dimension
                    squares += weights[j] / 2 * _rows(critic) / dimension
            gains[a, b] = 2 * products - squares
            bounds[a, b] = _with_factor(products, squares)
    return Tournament(names, sigma, horizon, np.stack(losses), gains, bounds)


def tournaments(settings: Mapping[str, Any], models: Mapping[str, Any], dataset: Any, device: Any) -> dict[str, Any]:
    """The tournament of trained models, `hamflow.methods.Generator`s by name, at every noise level: plain values, for a file.

    The samples are fresh ones of the law of points where it is known, else held-out data, else, where nothing was held out,
    data that the models were trained on; the result says which. A model that implies no denoiser stays out, and so does one
    whose denoiser is of another noise level.

    Args:
        settings: of `ModelSpec`; estimator and options are of no use here.
        dataset: a `hamflow.data.Dataset`, prepared.
    Raises:
        ConfigurationError: a key or value that cannot be; fewer than two models.
    """
    spec = convert(ModelSpec, settings, "metrics.hsd")
    x, label, origin = _samples(spec, models, dataset)
    x, label = x.to(device), None if label is None else label.to(device)
    found = []
    for sigma in spec.sigmas:
        denoisers: dict[str, Denoiser] = {}
        for name, model in models.items():
            own = label if model.classes else None
            with suppress(NotOffered, AttributeError):
                model.denoise(x[:1], sigma, None if own is None else own[:1])
                denoisers[name] = implied_denoiser(model, own, spec.batch)
        how = {key: getattr(spec, key) for key in ("horizon", "times", "steps", "scheme", "seed")}
        found.append(hold_tournament(denoisers, x, sigma, **how).as_dict())
    return {"samples": origin, "tournaments": found}


def _samples(spec: ModelSpec, models: Mapping[str, Any], dataset: Any) -> tuple[Tensor, Tensor | None, str]:
    """(data, their labels, where they are from)."""
    rng, law = draws.generator(spec.seed, "tournament", "rows"), dataset.density()
    if law is not None and not any(model.classes for model in models.values()):
        return law.sample(spec.samples, rng).float(), None, "law"
    held_out = bool(dataset.manifest["split"]["test"])
    part = dataset.test() if held_out else dataset
    picked = rng.choice(part.count, size=min(spec.samples, part.count), replace=False)
    return (*part.batch(np.sort(picked)), "held-out data" if held_out else "training data")


def _with_factor(products: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """2 c V . v - c^2 |V|^2 by sample, with c >= 0 the best of the other half of the samples."""
    found, half = np.empty_like(products), len(products) // 2
    for own, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        total = squares[other].sum()
        c = max(products[other].sum() / total, 0.0) if total > 0 else 0.0
        found[own] = 2 * c * products[own] - c**2 * squares[own]
    return found


def _rows(a: Tensor, b: Tensor | None = None) -> np.ndarray:
    """Scalar products of the rows, float64 [N]."""
    a = a.double()
    return (a * (a if b is None else b.double())).flatten(1).sum(1).cpu().numpy()


def _paired(by_sample: np.ndarray) -> Paired:
    return Paired(by_sample.mean(-1), by_sample.std(-1, ddof=1) / by_sample.shape[-1] ** 0.5)


def _check(denoisers: Mapping[str, Denoiser], data: Tensor, sigma: float, horizon: float) -> None:
    if len(denoisers) < 2:
        raise ConfigurationError(
            f"a tournament needs two models that imply a denoiser, got {len(denoisers)}",
            why="each model is judged by the others",
            fix="name further methods in run.methods; reflection and methods without a score imply none",
        )
    if len(data) < LEAST:
        raise ConfigurationError(f"a tournament needs {LEAST} samples of the data, got {len(data)}")
    for name, value in (("sigma", sigma), ("horizon", horizon)):
        if not 0 < value < float("inf"):
            raise ConfigurationError(f"`{name}` must be a number > 0, got {value}")
