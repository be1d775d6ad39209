"""Equivariant Hamiltonian flows: densities by maximum likelihood, with symmetries as constraints (arXiv:1909.13739)."""

import math
import warnings
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from hamflow import draws
from hamflow.dynamics import SCHEMES
from hamflow.equivariant.bases import BASES, centred
from hamflow.equivariant.constraints import Multiplier, asymmetry, check_base, check_flow, constrained
from hamflow.equivariant.encoders import CartesianEncoder, Encoder, ParticleEncoder, RadialEncoder
from hamflow.equivariant.energies import Energy, NetworkEnergy, PairwiseEnergy, Quadratic, RadialEnergy
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence
from hamflow.equivariant.generators import AffineGenerator, over_particles, special_euclidean, special_orthogonal, translations
from hamflow.equivariant.torus import TorusEncoder, TorusEnergy, shift_asymmetry
from hamflow.errors import ConfigurationError
from hamflow.methods.base import METHODS, Facts, Generator, Sampling, check_direct, classes_of
from hamflow.registry import Count, Options, Positive
from hamflow.training.fit import Batch, Objective, Turn

GROUPS: dict[str, Callable[[int], list[AffineGenerator]]] = {
    "rotations": special_orthogonal,
    "translations": translations,
    "euclidean": special_euclidean,
}
ROWS = 65536  # states at a time
SURE = 6.0  # standard scores at which data are said to lack a symmetry


@METHODS.register("equivariant")
class EquivariantFlow(Options, kw_only=True, frozen=True):
    """Learned Hamiltonians H_i = K_i(p) + U_i(q) that carry a base law to the data, by a bound of the likelihood.

    Attributes:
        constraint: none; soft, {g, H_i} = 0 by a multiplier; hard, by construction.
        group: whose generators g are: rotations SO(d), translations, euclidean SE(d), of the space of one particle; or
            shifts, of images on a torus by whole pixels: a finite group, for constraint hard.
        particles: the coordinates are those of so many particles, one after the other; the group moves them together.
        hamiltonians, steps, step, scheme: how many in a row, integrator steps under each, their length at first, the scheme.
        kinetic: learned, or quadratic, |p|^2 / 2m with m learned, of which U alone bends the trajectories.
        width, depth: of every network. gain: on the initial weights of the energies; below 2 the flow may stay the identity.
        features: what an energy without hard constraint sees of q: plain, q alone; distance, also soft steps of |q|, as the
            radial energies of a hard one do, so that all three can make narrow rings.
        base: normal; soft_uniform; mean_free (particles only).
        spread: of the positions of a normal base law, in units of the data's own, kept; None: it is learned. A law wider than
            the modes of the data puts the minima of a single potential at them (theory 9.7).
        encoder: of the momenta: diagonal or full normal law; radial (in the frame of q/|q|); particles; torus (convolutional).
        momenta: a datum in the training bound; 1: ELBO.
        tolerance, multiplier, limit: of the soft constraint: C <= tolerance, lambda at first, its largest value. The multiplier
            is a player: `training.players.multiplier.learning_rate` is the step of ln lambda.
        importance: momenta a datum in `log_density`.
    """

    samplers: ClassVar = ("direct",)

    constraint: Literal["none", "soft", "hard"] = "none"
    group: Literal["shifts", *GROUPS] = "rotations"  # type: ignore[valid-type]  # the names of a table
    particles: Count = 1
    hamiltonians: Annotated[int, Meta(ge=1, le=64)] = 2
    steps: Annotated[int, Meta(ge=1, le=1000)] = 4
    step: Positive = 0.25
    scheme: Literal[tuple(SCHEMES)] = "leapfrog"  # type: ignore[valid-type]
    kinetic: Literal["learned", "quadratic"] = "learned"
    width: Annotated[int, Meta(ge=1, le=65536)] = 64
    depth: Annotated[int, Meta(ge=1, le=64)] = 2
    gain: Positive = 3.0
    features: Literal["plain", "distance"] = "distance"
    base: Literal[tuple(BASES)] = "normal"  # type: ignore[valid-type]
    spread: Positive | None = None
    encoder: Literal["diagonal", "full", "radial", "particles", "torus"] = "full"
    momenta: Count = 1
    tolerance: Positive = 0.05
    multiplier: Positive = 0.1
    limit: Positive = 10.0
    importance: Count = 64

    def __post_init__(self) -> None:
        if (self.base == "mean_free") != (self.encoder == "particles"):
            raise ValueError("needs base mean_free and encoder particles together: both are laws on states without a mean")
        if self.spread is not None and self.base != "normal":
            raise ValueError("has a `spread`, which is that of base normal")
        if self.base == "mean_free" and self.constraint != "hard":
            raise ValueError("has base mean_free, which takes constraint hard: its energies are of distances alone")
        if self.group == "shifts" and self.constraint == "soft":
            raise ValueError("has constraint soft, which needs a generator, but group shifts is finite: constraint hard")
        if self.group == "shifts" and self.particles != 1:
            raise ValueError("has `particles`, but group shifts moves images")

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "EquivariantObjective":
        if data.classes:
            raise ConfigurationError(
                f"an equivariant flow learns no conditional law, but `datasets.{data.name}.conditional` is true"
            )
        d = math.prod(data.shape)
        if d % self.particles:
            raise ConfigurationError(
                f"`particles` = {self.particles}, but data '{data.name}' have {d} coordinates",
                why="every particle has equally many",
                fix="set `particles` to a divisor",
            )
        with draws.seeded("cpu", seed, "equivariant", "density", "weights"):
            density = self.density(tuple(data.shape), data.sigma_data)
        return EquivariantObjective(self, density, self.generators(d), data.shape)

    def generators(self, d: int) -> list[AffineGenerator]:
        """Of the group, on all d coordinates; none where nothing is constrained, or by a finite group."""
        if self.constraint == "none" or self.group == "shifts":
            return []
        return [over_particles(one, self.particles) for one in GROUPS[self.group](d // self.particles)]

    def density(self, shape: tuple[int, ...], unit: float) -> HamiltonianDensity:
        """The model with new weights. Raises ConfigurationError for a constraint that Lemma 1 does not allow."""
        d = math.prod(shape)
        if len(shape) != 3 and "torus" in (self._symmetry, self.encoder):
            raise ConfigurationError(
                f"group shifts and encoder torus are for images, but a datum has {d} coordinates",
                fix="another `group` and `encoder`, or data of images",
            )
        pairs = [Hamiltonian(self._kinetic(shape), self._energy(shape, False)) for _ in range(self.hamiltonians)]
        flow = HamiltonianSequence(pairs, self.steps, self.step, self.scheme)
        base = BASES[self.base](d, self.particles, self.constraint != "none", self.spread)
        generators = self.generators(d)
        check_base(base, generators)
        if self.constraint == "hard":
            check_flow(flow, generators, d)
        return HamiltonianDensity(flow, base, self._encoder(shape), unit)

    def generator(self, averaged: "EquivariantObjective") -> "DensityGenerator":
        return DensityGenerator(averaged.density, averaged.shape, self.importance)

    @property
    def _symmetry(self) -> Literal["none", "torus", "radial", "pairwise"]:
        """Of the energies, by construction."""
        if self.constraint != "hard":
            return "none"
        if self.group == "shifts":
            return "torus"
        return "radial" if self.particles == 1 else "pairwise"

    def _kinetic(self, shape: tuple[int, ...]) -> Energy:
        return Quadratic() if self.kinetic == "quadratic" else self._energy(shape, True)

    def _energy(self, shape: tuple[int, ...], quadratic: bool) -> Energy:
        form = (self.width, self.depth, self.gain, quadratic)
        kinds: dict[str, Callable[[], Energy]] = {
            "none": lambda: NetworkEnergy(math.prod(shape), *form, distance=self.features == "distance"),
            "torus": lambda: TorusEnergy(shape, *form),
            "radial": lambda: RadialEnergy(*form),
            "pairwise": lambda: PairwiseEnergy(self.particles, *form),
        }
        return kinds[self._symmetry]()

    def _encoder(self, shape: tuple[int, ...]) -> Encoder:
        d = math.prod(shape)
        if self.encoder == "torus":
            return TorusEncoder(shape, self.width, self.depth)
        if self.encoder == "particles":
            return ParticleEncoder(d, self.particles, self.width, self.depth)
        if self.encoder == "radial":
            return RadialEncoder(d, self.width, self.depth)
        return CartesianEncoder(d, self.encoder == "full", self.width, self.depth)


class EquivariantObjective(Objective):
    """-bound + lambda C, lowered by the density; the multiplier goes up where C is above its tolerance.

    Args:
        method: its options. density: the model. generators: of a soft constraint; shape: of one sample.
    """

    advice = (
        "lower `training.learning_rate` or `training.gradient_clip`, or the method's `step` or `gain`: long steps are unstable"
    )

    def __init__(
        self,
        method: EquivariantFlow,
        density: HamiltonianDensity,
        generators: list[AffineGenerator],
        shape: tuple[int, ...],
    ):
        super().__init__()
        self.method, self.density, self.generators, self.shape = method, density, generators, shape
        self.turns: tuple[Turn, ...] = (Turn("density", "density"),)
        if method.constraint == "soft":
            self.multiplier = Multiplier(method.multiplier, method.tolerance, method.limit)
            self.turns = (
                Turn("multiplier", "multiplier"),
                *self.turns,
            )  # the loss of the last turn is the one that is reported
        self._residuals: list[Tensor] = []  # of the microbatches of the update under way
        self._said = False

    def losses(self, turn: str, batch: Batch) -> Tensor:
        if turn == "multiplier":
            return self.multiplier.loss().expand(len(batch.x))
        x = batch.x.flatten(1)
        noise = batch.draw.normal("momentum", (self.method.momenta, x.shape[1])).to(x).transpose(0, 1)
        if batch.step == 0:
            self._look_at(x)
        if self.method.constraint != "soft":
            return -self.density.bound(x, noise)
        weights, residual = constrained(self.density, self.generators, x, noise)
        self._residuals.append(residual.detach())
        bound = torch.logsumexp(weights, 0) - math.log(len(noise))
        return self.multiplier.value * residual - bound

    def after(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        if self.method.constraint != "soft":
            return {}
        if turn == "density":
            self.multiplier.watch(torch.cat(self._residuals).mean())
            self._residuals = []
            return {"residual": self.multiplier.average.clone()}
        self.multiplier.confine()
        if batch.x.device.type == "cpu" and not self._said and self.multiplier.stuck:  # else no step waits; the report has both
            self._said = True
            warnings.warn(
                f"the multiplier is at its limit {self.method.limit:g}, and the residual {float(self.multiplier.average):.3g} "
                f"stays above the tolerance {self.method.tolerance:g}: the data may lack the symmetry; else raise either",
                stacklevel=2,
            )
        return {"multiplier": self.multiplier.value.clone()}

    def _look_at(self, x: Tensor) -> None:
        """Warn of data that surely lack the symmetry: the bound would suffer from it."""
        relative = self.method.base == "mean_free"  # a law of relative positions, which translations leave alone
        x = centred(x, self.method.particles) if relative else x
        if self.method.constraint == "hard" and self.method.group == "shifts":
            self._tell("shifts", shift_asymmetry(x / self.density.unit, self.shape))
        for generator in self.generators:
            if relative and not bool(generator.matrix.any()):
                continue
            self._tell(generator.name, asymmetry(generator, x / self.density.unit))

    def _tell(self, symmetry: str, score: float) -> None:
        if score > SURE and not self._said:
            self._said = True
            warnings.warn(
                f"the data are not invariant under '{symmetry}' ({score:.1f} standard errors), which the constraint "
                "imposes on the model: it cannot fit them; set `constraint: none`, or another `group`",
                stacklevel=3,
            )


class DensityGenerator:
    """What a trained density can do.

    Args:
        density: the model. shape: of one sample. importance: momenta a datum in the bound that `log_density` is.
    """

    classes = 0

    def __init__(self, density: HamiltonianDensity, shape: tuple[int, ...], importance: int):
        self.module, self.shape, self.importance = density, tuple(shape), importance
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape], by one pass of the flow."""
        check_direct("a Hamiltonian density", sampler, nfe)
        classes_of(self.classes, seeds, label)
        like, draw = next(self.module.parameters()), draws.SampleDraws(seeds)
        noise = [draw.normal(name, (math.prod(self.shape),)).to(like) for name in ("position", "momentum")]
        return self.module.draw(*noise).double().reshape(len(seeds), *self.shape), 1

    @torch.no_grad()
    def latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state (q, p), [N, d] each, of the base law to which the flow leads x [N, *shape] with its mean momentum back."""
        x = x.flatten(1).to(next(self.module.parameters()))
        q, p, _ = self.module.encode(x, torch.zeros_like(x)[None])
        return self.module.flow.inverse(q, p)

    @torch.no_grad()
    def log_density(self, x: Tensor, momenta: int | None = None, seed: int = 0) -> Tensor:
        """A lower bound of ln p(x), [N], nats, importance-weighted over momenta drawn from the encoder.

        Args:
            x: [N, *shape], data units. momenta: a datum, 1: the ELBO; None: as the method says. seed: of their draw.
        """
        count, like = self.importance if momenta is None else momenta, next(self.module.parameters())
        rows = x.flatten(1).to(like)
        rng = draws.generator(seed, "bound", count)
        parts = [torch.zeros(0).to(like)]
        for part in rows.split(max(1, ROWS // count)):
            noise = torch.from_numpy(rng.standard_normal((count, *part.shape))).to(like)
            parts.append(self.module.bound(part, noise))
        return torch.cat(parts).to(x)
