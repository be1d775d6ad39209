"""What a solver would err if the velocity were known exactly: the velocity of mixtures that are fitted to the data.

It takes no training, and says of a flow, a time grid and a solver how well they go together.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hamflow import draws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.flows import GaussianFlow, HamiltonianFlow
from hamflow.laws.full_mixtures import FullMixture
from hamflow.registry import Count, Options, Positive
from hamflow.sampling.learned import Field, precise_ends
from hamflow.sampling.solvers import solve
from hamflow.training.fit import Samples

LARGEST = 1024  # coordinates of data to which mixtures of full covariances are fitted


class ProxySpec(Options, kw_only=True, frozen=True):
    """components, ridge: of each mixture, the ridge in units of the mean variance; fits: how many mixtures, from different
    random starts; starts: x_T of each; precise: steps of rk4 of the solutions that count as exact."""

    components: Count = 20
    ridge: Positive = 0.02
    fits: Count = 3
    starts: Count = 200
    precise: Count = 40


class ExactField(NamedTuple):
    """An exact velocity, and precise solutions of it.

    Attributes:
        flow: whose velocity it is. velocity: V(x, t). starts, ends: x_T and x_0, float64 [n, D].
        spread: root mean square of the data about their mean, data units.
    """

    flow: HamiltonianFlow
    velocity: Field
    starts: Tensor
    ends: Tensor
    spread: float

    def errors(self, sampler: str, times: Tensor) -> Tensor:
        """Root mean square over the coordinates of what a sampler is off at the end, [n], in units of the data's spread.

        Args:
            times: decreasing, from the horizon to 0.
        """
        found = solve(sampler, self.velocity, self.starts, times, self.flow)
        return (found - self.ends).square().mean(1).sqrt() / self.spread

    @property
    def transport(self) -> float:
        """E|x_T - x_0|^2 / E|x_0|^2."""
        return float((self.starts - self.ends).square().mean() / self.ends.square().mean())


class Proxy:
    """Mixtures of Gaussians fitted to data.

    Args:
        x: data, [N, *shape].
        spec: how many and how large.
        seed: of the fits and the starts. first: number of the first fit; equal numbers are equal fits.
    Raises:
        ConfigurationError: too few data for as many components, or too many coordinates.
    """

    def __init__(self, x: Tensor, spec: ProxySpec, seed: int = 0, first: int = 0):
        self.spec, self.seed, self.first = spec, seed, first
        self.data = Samples(x.double())
        self.shape, rows = tuple(x.shape[1:]), x.double().flatten(1).numpy()
        if rows.shape[1] > LARGEST:
            raise ConfigurationError(
                f"these data have {rows.shape[1]} coordinates, a mixture of full covariances at most {LARGEST}",
                fix="smaller images",
            )
        self.spread = float(np.sqrt(rows.var(0).mean()))
        numbers = range(first, first + spec.fits)
        self.laws = [FullMixture.fit(rows, spec.components, spec.ridge, seed + k) for k in numbers]

    def fields(self, flow: HamiltonianFlow) -> Iterator[ExactField]:
        """The velocity of a flow for each mixture, made as it is asked for. Raises NotOffered: its noise is not normal."""
        if not isinstance(flow, GaussianFlow):
            raise NotOffered(f"flow '{flow.name}' has noise that is not normal: the velocity of a mixture has no closed form")
        root = self._root(flow)
        return (self._field(flow, law, root, self.first + k) for k, law in enumerate(self.laws))

    def _field(self, flow: GaussianFlow, law: FullMixture, root: Tensor, number: int) -> ExactField:
        generator = draws.generator(self.seed, "proxy", "starts", number)
        noise = torch.from_numpy(generator.standard_normal((self.spec.starts, len(root))))
        velocity, starts = law.velocity_under(flow, root), flow.terminal(noise @ root)
        return ExactField(flow, velocity, starts, precise_ends(velocity, flow, starts, self.spec.precise), self.spread)

    def _root(self, flow: GaussianFlow) -> Tensor:
        """R, symmetric, for noise R n of the flow, n ~ N(0, I)."""
        flow.for_shape(self.shape).measure(self.data)
        size = self.data.x[0].numel()
        covariance = flow.times_covariance(torch.eye(size, dtype=torch.float64).reshape(size, *self.shape)).flatten(1)
        spectrum, vectors = torch.linalg.eigh(covariance)
        return vectors * spectrum.sqrt() @ vectors.T
