"""Score matching without a critic: denoising, implicit, sliced."""

from typing import Any, Literal

from torch import Tensor, nn

from hamflow import networks
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.methods.base import METHODS, Facts, Generator, Sampling
from hamflow.registry import Options, Positive
from hamflow.score import objectives
from hamflow.score.fields import ScoreField
from hamflow.training.fit import Batch, Objective, Turn


@METHODS.register("score_matching")
class ScoreMatching(Options, kw_only=True, frozen=True):
    """A score by one of the objectives that need no critic.

    Attributes:
        loss: denoising (Vincent 2011); implicit, with the exact divergence; hutchinson, with the divergence along one random
            direction a sample; sliced (Song et al. 2019), with one direction a sample.
        sigma: noise level of denoising, data units: what is learned is the score of the data smoothed by it.
    """

    loss: Literal["denoising", "implicit", "hutchinson", "sliced"] = "denoising"
    sigma: Positive = 0.1

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "ScoreObjective":
        return ScoreObjective(self, score_field(data, seed))

    def generator(self, averaged: "ScoreObjective") -> "ScoreGenerator":
        return ScoreGenerator(averaged.score, averaged.shape, self.sigma if self.loss == "denoising" else 0.0)


class ScoreObjective(Objective):
    """The loss of a score field.

    Args:
        method: which loss. score: the field.
    """

    turns = (Turn("score", "score"),)

    def __init__(self, method: ScoreMatching, score: ScoreField):
        super().__init__()
        self.method, self.score, self.shape = method, score, score.shape

    def losses(self, turn: str, batch: Batch) -> Tensor:
        x, loss = batch.x, self.method.loss
        if loss == "implicit":
            return objectives.implicit(self.score, x)
        noise = batch.draw.normal("noise", x.shape[1:])
        if loss == "denoising":
            return objectives.denoising(self.score, x, noise, self.method.sigma)
        return (objectives.implicit if loss == "hutchinson" else objectives.sliced)(self.score, x, noise[None])


class ScoreGenerator:
    """A trained score; it gives no samples.

    Args:
        module: the score field. shape: of one sample. sigma: noise level of the data whose score it is, 0: the data's own.
    """

    classes = 0

    def __init__(self, module: ScoreField, shape: tuple[int, ...], sigma: float = 0.0):
        self.module: nn.Module = module
        self.shape, self.sigma = shape, sigma
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    def score(self, y: Tensor, sigma: float | Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """The score at y, like y; `sigma`, if given, must be the level that was learned. Raises NotOffered for another."""
        if sigma is not None and float(sigma) != self.sigma:
            raise NotOffered(f"the score was learned at noise level {self.sigma:g}, not at {float(sigma):g}")
        return self.module(y.to(next(self.module.parameters()))).to(y)

    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        raise NotOffered("a score of one noise level has no sampler", fix="give its method an entry `samplers: {}`")


def score_field(data: Facts, seed: int, part: str = "network") -> ScoreField:
    """A new score network at the spread of the data."""
    if data.classes:
        raise ConfigurationError(f"score matching learns no conditional score, but `datasets.{data.name}.conditional` is true")
    return ScoreField(networks.build(data.network, data.shape, 0, seed, part), data.sigma_data, data.shape)
