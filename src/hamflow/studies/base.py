"""What the experiments share: the mixture, specifications that are closed, exact score errors."""

from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta, field
from torch import Tensor, nn

from hamflow import draws
from hamflow.data import sources
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import Facts, Method
from hamflow.networks.base import NETWORKS
from hamflow.registry import Count, Fraction, NotNegative, Options, Positive
from hamflow.training.fit import Samples, fitted
from hamflow.training.plan import Training

Network = Annotated[dict[str, Any], NETWORKS.entry("kind")]

# The pilot mixture (theory 2.10): three components in the plane, E|grad log p|^2 = 4.67
PILOT = {"weights": [0.4, 0.3, 0.3], "means": [[1.5, 0.0], [-1.0, 1.3], [-1.0, -1.3]], "sds": [0.6, 0.6, 0.6]}


class Common(Options, kw_only=True, frozen=True):
    """Keys of every specification.

    Attributes: mixture: {weights, means, sds}, the data. network: of the score, {kind, ...}. seed: of all random numbers.
        evaluation: samples of exact errors.
    """

    mixture: dict[str, Any] = field(default_factory=lambda: dict(PILOT))
    network: Network = field(default_factory=lambda: {"kind": "small", "width": 128, "depth": 3})
    seed: Annotated[int, Meta(ge=0)] = 0
    evaluation: Count = 20_000

    def law(self) -> GaussianMixture:
        """The mixture. Raises ConfigurationError if it is none."""
        try:
            return GaussianMixture(**self.mixture)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`mixture` is no law: {error}") from error

    def facts(self) -> Facts:
        """What a method is told of the data."""
        law = self.law()
        reach = float((law.means.abs() + 10 * law.sds).max())
        return Facts(
            name="mixture",
            shape=(law.dimension,),
            classes=0,
            sigma_data=spread_of(law),
            box=(-reach, reach),
            network=self.network,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return msgspec.to_builtins(self)


class ScoreTraining(Training, kw_only=True, frozen=True):
    """How a score is trained that has no critic."""

    train_kimg: Positive = 512.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    ema_halflife_kimg: NotNegative = 18.0
    ema_rampup: Positive = 0.07


def train_score(spec: Common, method: Method, plan: Training, seed: int, data: Tensor | None = None) -> Any:
    """The trained generator of a method on fresh samples of the mixture, or on given data [N, D]; a function of the seed."""
    if data is None:
        data = samples_of_training(spec.law(), plan, seed)
    return method.generator(fitted(method.objective(spec.facts(), {}, seed), Samples(data.float()), plan, seed))


def samples_of_training(law: GaussianMixture, plan: Training, seed: int) -> Tensor:
    """So many samples that a training meets each of them once."""
    return law.sample(plan.steps * plan.batch, draws.generator(seed, "study", "training"))


def spread_of(law: GaussianMixture) -> float:
    """Root mean square of the coordinates about their means."""
    return float(law.variance.mean().sqrt())


def fresh_samples(law: GaussianMixture, n: int, seed: int) -> Tensor:
    """Samples on which trained scores are judged."""
    return law.sample(n, draws.generator(seed, "evaluation"))


def samples_of_discrepancy(law: GaussianMixture, n: int, seed: int) -> Tensor:
    """Samples of which discrepancies are measured."""
    return law.sample(n, draws.generator(seed, "discrepancy", "samples"))


@torch.no_grad()
def score_error(law: GaussianMixture, score: nn.Module, n: int, seed: int) -> tuple[float, float]:
    """E|s - grad log p|^2 = 2 L_esm on n fresh samples, and its standard error."""
    x = fresh_samples(law, n, seed)
    error = (in_double(score)(x) - law.score(x)).square().sum(1)
    return float(error.mean()), float(error.std() / n**0.5)


def fisher_information(law: GaussianMixture, n: int, seed: int) -> float:
    """E|grad log p|^2: the error of the zero score, on the samples of `score_error`."""
    return float(law.score(fresh_samples(law, n, seed)).square().sum(1).mean())


def in_double(score: nn.Module) -> Any:
    """A score network as a force on float64 positions: the state keeps its precision, the network its dtype."""
    dtype = next(score.parameters()).dtype
    return lambda x, t=0.0: score(x.to(dtype), t).to(x)


def standardised(source: str) -> Tensor:
    """The data of a source, centred and at unit spread, float64 [N, *shape]."""
    rows = sources.build(source, where="studies.").read()[0].astype(np.float64)
    if rows.ndim == 4:
        rows = rows.transpose(0, 3, 1, 2)
    rows -= rows.mean(0)
    return torch.from_numpy(rows / np.sqrt(rows.var(0).mean()))


def rounded(array: Tensor | np.ndarray, digits: int = 6) -> list:
    """Nested lists of numbers with so many significant digits."""
    array = np.asarray(array.detach() if isinstance(array, Tensor) else array, dtype=np.float64)
    magnitude = np.floor(np.log10(np.where(array == 0, 1, np.abs(array))))
    return (np.round(array / 10**magnitude, digits - 1) * 10**magnitude).tolist()
