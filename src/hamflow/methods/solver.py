"""Learned solvers as a kind of method: few evaluations of a field that another method has trained."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.draws import SampleDraws, key
from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.methods.base import METHODS, Facts, Generator, Sampling
from hamflow.methods.velocity import ROLE, FlowGenerator, VelocityField, field_of
from hamflow.registry import Count, Options
from hamflow.sampling.gits import gits_grid
from hamflow.sampling.learned import (
    LEARNED,
    PAIRS_AT_A_TIME,
    Field,
    LearnedSolver,
    SolverWeights,
    angle_grid,
    distances,
    precise_ends,
    run,
)
from hamflow.sampling.teleportation import Teleport
from hamflow.training.energy import EnergyDistance
from hamflow.training.fit import Batch, Objective, Rows, Samples, Turn, fitted
from hamflow.training.plan import Training

Pairs = tuple[Tensor, Tensor, Tensor | None]  # x_T, x_0, and labels, if there are any
LARGEST = 2**53  # of the seeds of noise; those of samples are below 1e15


@METHODS.register("solver")
class SolverLearning(Options, kw_only=True, frozen=True):
    """A bespoke non-stationary solver of the parent's field (BNS, arXiv:2403.01329); docs/theory.md 6.5.

    A step of the training takes `training.batch` of the pairs, whatever the data: 12.8 kimg in batches of 32 are 400 steps.

    Attributes:
        nfe: evaluations of the field.
        match: ends, of precise solutions from the same noise; law, of the data: the energy distance of samples from data,
            among those of one microbatch and process, for which there are no pairs.
        pairs: of noise and its precise solution, from which is learned. precise: steps of rk4 of these solutions, four
            evaluations each. Both also serve `start: gits`.
        times_only: the coefficients stay Adams-Bashforth's of the times (as LD3, arXiv:2410.10356).
        start: of the times: even in arctan(sigma / scale), or by dynamic programming along precise solutions (GITS,
            arXiv:2405.11326).
    """

    samplers: ClassVar = (LEARNED,)
    parents: ClassVar = {ROLE: "velocity"}

    nfe: Annotated[int, Meta(ge=1, le=64)] = 8
    match: Literal["ends", "law"] = "ends"
    pairs: Count = 512
    precise: Count = 50
    times_only: bool = False
    start: Literal["angle", "gits"] = "angle"

    def check_samplers(self, samplers: dict[str, list[int | str]]) -> None:
        """Raise ConfigurationError for numbers of evaluations that the solver does not spend."""
        if samplers.get(LEARNED, []) != [self.nfe]:
            raise ConfigurationError(
                f"a method of kind 'solver' with `nfe: {self.nfe}` is sampled by it, but has `samplers: {samplers}`",
                why="the times and coefficients of a learned solver are those of one number of evaluations",
                fix=f"`samplers: {{{LEARNED}: [{self.nfe}]}}`, beside others if you like",
            )

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "SolverObjective":
        parent = field_of(parents, data, "a learned solver is one of a velocity field")
        distance = EnergyDistance(data.shape, data.box) if self.match == "law" else None
        return SolverObjective(self, parent.module, data.sigma_data, seed, distance=distance)

    def generator(self, averaged: "SolverObjective") -> "SolverGenerator":
        return SolverGenerator(averaged)


class SolverObjective(Objective):
    """The distance of the solver's ends from precise ones, of pairs that are drawn from the seed, or of their law from the
    data's; the field stays as it is.

    Args:
        method: its options. field: the parent's. scale: spread of the data, data units.
        pairs: as of the property; None: they are made when the first are needed.
        distance: of the law of the ends from that of the data; None: of the ends from precise ones.
    """

    turns = (Turn("solver", "solver"),)
    advice = "lower training.learning_rate, or look at the parent's training curve"

    def __init__(
        self,
        method: SolverLearning,
        field: VelocityField,
        scale: float,
        seed: int,
        pairs: Pairs | None = None,
        distance: EnergyDistance | None = None,
    ):
        super().__init__()
        self.method, self.scale, self.seed, self.distance = method, scale, seed, distance
        self.field = field.requires_grad_(False).eval()
        self.solver = SolverWeights(method.nfe, method.times_only)
        self._pairs = pairs  # made again after a break, to the same bits

    def train(self, mode: bool = True) -> "SolverObjective":
        super().train(mode)
        self.field.eval()  # the dropout of a field that only is solved
        return self

    def check(self) -> None:
        self.field.flow.check_measured()

    def begin(self, rows: Rows) -> None:
        flow, nfe = self.field.flow, self.method.nfe
        if self.method.start == "angle":
            self.solver.begin(angle_grid(flow, nfe, self.scale))
            return
        starts, _, labels = self.pairs
        few = slice(PAIRS_AT_A_TIME)
        self.solver.begin(gits_grid(self._velocity(None if labels is None else labels[few]), flow, starts[few], nfe))

    def losses(self, turn: str, batch: Batch) -> Tensor:
        if self.distance is not None:
            flow, labels = self.field.flow, batch.label if self.field.classes else None
            starts = flow.terminal(flow.noise(batch.draw, self.field.shape).to(batch.x.device)).double()
            return self.distance(run(self._velocity(labels), starts, *self.solver()), batch.x)
        starts, ends, labels = self.pairs
        picked = (batch.draw.uniform("pair") * len(starts)).long().to(starts.device)
        found = run(self._velocity(None if labels is None else labels[picked]), starts[picked], *self.solver())
        return distances(found, ends[picked])

    @property
    def pairs(self) -> Pairs:
        """x_T and x_0, float64 [pairs, *shape], and the labels of a conditional field, each class equally often."""
        if self._pairs is None:
            device, field = next(self.field.parameters()).device, self.field
            first = key(self.seed, "solver", "pairs") % LARGEST
            noise = field.flow.noise(SampleDraws(range(first, first + self.method.pairs)), field.shape)
            starts = field.flow.terminal(noise.to(device))
            labels = torch.arange(len(starts), device=device) % field.classes if field.classes else None
            parts = [slice(i, i + PAIRS_AT_A_TIME) for i in range(0, len(starts), PAIRS_AT_A_TIME)]
            fields = [self._velocity(None if labels is None else labels[part]) for part in parts]
            solved = [precise_ends(v, field.flow, starts[p], self.method.precise) for v, p in zip(fields, parts, strict=True)]
            self._pairs = starts, torch.cat(solved), labels
        return self._pairs

    def _velocity(self, labels: Tensor | None) -> Any:
        return self.field.flow.unfold(lambda x, t: self.field(x, t, labels))


class GivenField(nn.Module):
    """V(x, t) that somebody gives, in the place of a trained one; without classes."""

    classes = 0

    def __init__(self, velocity: Field, flow: HamiltonianFlow, shape: tuple[int, ...]):
        super().__init__()
        self.velocity, self.flow, self.shape = velocity, flow, shape

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.velocity(x, t)


def learn(
    velocity: Field,
    flow: HamiltonianFlow,
    starts: Tensor,
    nfe: int,
    *,
    times_only: bool = False,
    steps: int = 1600,
    batch: int = 32,
    learning_rate: float = 5e-3,
    precise: int = 50,
    seed: int = 0,
) -> LearnedSolver:
    """Fit times and coefficients to precise solutions, from Adams-Bashforth of order 3 on `angle_grid`.

    The loss is the mean over samples of the root mean square error. Its square is ruled by the rare samples at a decision
    boundary, its logarithm forgets them.

    Args:
        velocity: V(x, t), differentiable in both; its own weights do not move.
        starts: x_T, [N, *dims], for example 512. nfe: evaluations, >= 1. times_only: see `SolverWeights`.
        steps, batch, learning_rate: of the training. precise: steps of rk4 of the solutions.
        seed: of the choice of pairs.
    Raises:
        ConfigurationError: nfe < 1. DivergenceError: the field is not finite on the way.
    Source: Shaul et al. 2024 (arXiv:2403.01329); the loss and the start are measured choices (docs/theory.md 6.5).
    """
    starts = starts.detach().double()
    ends = precise_ends(velocity, flow, starts, precise)
    field: Any = GivenField(velocity, flow, tuple(starts.shape[1:]))
    method = SolverLearning(nfe=nfe, pairs=len(starts), precise=precise, times_only=times_only)
    objective = SolverObjective(method, field, float(ends.std()), seed, (starts, ends, None)).to(starts.device)
    plan = Training(
        train_kimg=steps * batch / 1000,
        batch=batch,
        learning_rate=learning_rate,
        betas=(0.9, 0.999),
        warmup_kimg=0,
        ema_halflife_kimg=0,
    )
    return fitted(objective, Samples(starts), plan, seed).solver.solver(flow)


class SolverGenerator:
    """Samples of the parent's field by the learned solver, or by any other. The score is the parent's, and not offered again.

    Args:
        trained: the objective or its average.
    """

    def __init__(self, trained: SolverObjective):
        self.module, self.fields = trained, FlowGenerator(trained.field)
        self.fields.solver = trained.solver.solver(trained.field.flow)
        self.shape, self.classes = self.fields.shape, self.fields.classes
        self.metadata: dict[str, Any] = {}

    @property
    def sampling(self) -> Sampling:
        return self.fields.sampling

    @sampling.setter
    def sampling(self, how: Sampling) -> None:
        self.fields.sampling = how

    @property
    def teleport(self) -> Teleport | None:
        return self.fields.teleport

    @teleport.setter
    def teleport(self, start: Teleport | None) -> None:
        self.fields.teleport = start

    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape], and the NFE that each cost. Raises ConfigurationError: `bns` with another NFE."""
        return self.fields.sample(seeds, sampler, nfe, label)
