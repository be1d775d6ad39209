"""Symmetry of a density: Lemma 1's conditions, the residual of a soft constraint and its multiplier, and a test of data."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hamflow import draws
from hamflow.equivariant.bases import Base
from hamflow.equivariant.brackets import poisson_bracket
from hamflow.equivariant.flow import HamiltonianDensity, HamiltonianSequence
from hamflow.equivariant.generators import AffineGenerator
from hamflow.errors import ConfigurationError

NOUGHT = 1e-8  # a bracket that is zero but for rounding, relative to the sizes that cancel in it
STATES = 16  # at which brackets are looked at
FEATURES = 32  # of the test of data, for each generator


def check_base(base: Base, generators: Sequence[AffineGenerator]) -> None:
    """Raise ConfigurationError for a base law that some weights of it make another than invariant: Lemma 1 asks {g, pi} = 0.

    The bracket is taken at random states and at random weights: those of the start may be symmetric by chance.
    """
    copied: Any
    copied, q, p = _somewhere(base, base.d)
    for charge in generators:
        charge.check_dimension(base.d)
        found = poisson_bracket(charge, copied.log_prob)(q, p).detach()
        if float(found.abs().max()) > NOUGHT * (1 + float(charge(q, p).abs().max())):
            raise ConfigurationError(
                f"the base law is not invariant under '{charge.name}': {{{charge.name}, ln pi}} is not zero",
                why="by Lemma 1 a flow with {g, H} = 0 carries the symmetry of its base law, and gives none to another; no "
                "normal law on all of space is the same after a translation, and no box the same after a rotation",
                fix="rotations: `base: normal`; translations of several particles: `base: mean_free`",
            )


def check_flow(flow: HamiltonianSequence, generators: Sequence[AffineGenerator], d: int) -> None:
    """Raise ConfigurationError unless {g, H_i} = 0 for every Hamiltonian, at random states and weights: a hard constraint."""
    copied: Any
    copied, q, p = _somewhere(flow, d)
    for generator in generators:
        generator.check_dimension(d)
        for hamiltonian in copied.hamiltonians:
            velocity, force = hamiltonian.velocity(p), hamiltonian.force(q)
            size = float((generator.field(q) * force).abs().max() + velocity.abs().max())
            if float(generator.rate(q, p, velocity, force).abs().max()) > NOUGHT * (1 + size):
                raise ConfigurationError(
                    f"the energies are not invariant under '{generator.name}': {{{generator.name}, H}} is not zero",
                    why="a hard constraint holds by construction, for every value of the weights",
                    fix="one particle under rotations needs radial energies, several particles pairwise ones",
                )


@torch.no_grad()
def _somewhere(module: nn.Module, d: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A copy of a module in float64 with other weights, and random states."""
    copied, rng = copy.deepcopy(module).double(), draws.generator(0, "symmetry", "check", "weights")
    for weight in copied.parameters():
        weight.add_(0.1 * draws.normal_like(rng, weight))
    q, p = (torch.from_numpy(rng.standard_normal((STATES, d))) for _ in range(2))
    return copied.requires_grad_(False), q, p


def constrained(
    density: HamiltonianDensity, generators: Sequence[AffineGenerator], x: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(log-weights [S, N], residual [N]): those of `log_weights`, and the mean of {g_k, H_i}^2 over the states on the way.

    Args:
        x: data, [N, d]. noise: unit normal, [S, N, d].
    Source: [derived] theory 9.5: the mean over generators, over the steps of the integrator and over the S momenta.
    """
    q, p, log_h = density.encode(x, noise)
    squares: list[Tensor] = []
    for hamiltonian, q, p in density.flow.visited(q, p, backwards=True):  # noqa: B020  the last state is the base's
        velocity, force = hamiltonian.velocity(p), hamiltonian.force(q)
        squares += [generator.rate(q, p, velocity, force).square() for generator in generators]
    residual = torch.stack(squares).mean(0).view(noise.shape[:2]).mean(0)
    return density.base.log_prob(q, p).view(noise.shape[:2]) - log_h, residual


class Multiplier(nn.Module):
    """lambda = e^u of a constraint C <= tolerance: u rises while the moving average of C is above the tolerance, else it falls.

    With tolerance 0 it would rise for ever, as C >= 0.

    Args:
        start: lambda at first. tolerance: kappa > 0. limit: the largest lambda.
    Source: [derived] theory 9.5, after Rezende and Viola 2018 (arXiv:1810.00597).
    """

    average: Tensor
    KEEP = 0.99  # of the moving average, an update

    def __init__(self, start: float, tolerance: float, limit: float):
        super().__init__()
        if not 0 < start <= limit:
            raise ConfigurationError(f"the multiplier begins at {start:g}, which is beyond its limit {limit:g}")
        self.tolerance, self.limit = tolerance, limit
        self.log = nn.Parameter(torch.tensor(math.log(start)))
        self.register_buffer("average", torch.tensor(float(tolerance)))

    @property
    def value(self) -> Tensor:
        """lambda, without gradient."""
        return self.log.detach().exp()

    def loss(self) -> Tensor:
        """-u (C - kappa): Adam, which takes steps of one size, moves u by its learning rate."""
        return -self.log * (self.average - self.tolerance)

    def watch(self, residual: Tensor) -> None:
        """Take a batch's mean of C into the average."""
        self.average.lerp_(residual.to(self.average), 1 - self.KEEP)

    def confine(self) -> None:
        """Keep lambda below its limit."""
        self.log.clamp_(max=math.log(self.limit))

    @property
    def stuck(self) -> bool:
        """Whether the largest lambda does not bring C to twice the tolerance."""
        at_limit = float(self.log) > math.log(self.limit) - 1e-6
        return at_limit and float(self.average) > 2 * self.tolerance


def asymmetry(generator: AffineGenerator, x: Tensor, seed: int = 0) -> float:
    """How surely data lack a symmetry: the largest of 32 standard scores, about 2 to 3 for data that have it.

    For a law with density f and tr A = 0, E[(A x + b) . grad phi(x)] = -int phi (A q + b) . grad f dq: it vanishes for every
    phi exactly if f is invariant. Here phi = cos(w . x + c) with random w and c.

    Args:
        x: data, [N, d], about unit spread. Source: [derived] theory 9.6.
    """
    rng = draws.generator(seed, "symmetry", "features", generator.name)
    x = x.detach().double().cpu()
    waves = torch.from_numpy(rng.standard_normal((x.shape[1], FEATURES))) * torch.from_numpy(rng.uniform(0.5, 2.0, FEATURES))
    phases = torch.from_numpy(rng.uniform(0, 2 * math.pi, FEATURES))
    values = -torch.sin(x @ waves + phases) * (generator.field(x) @ waves)
    return float((values.mean(0) / (values.std(0) / len(x) ** 0.5 + 1e-12)).abs().max())
