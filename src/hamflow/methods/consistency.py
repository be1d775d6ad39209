"""Consistency models: one or two evaluations a sample, tuned from a trained flow (arXiv:2303.01469, arXiv:2406.14548)."""

import copy
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from hamflow import draws
from hamflow.draws import SampleDraws
from hamflow.dynamics import broadcast
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.flows.base import LinearFlow, Velocity
from hamflow.methods.base import METHODS, Facts, Generator, SamplesOnly, Sampling, classes_of
from hamflow.methods.velocity import ROLE, VelocityField, field_of
from hamflow.registry import NotNegative, Options, Positive
from hamflow.training.fit import Batch, Objective, Turn

SAMPLER = "consistency"


@METHODS.register("consistency")
class ConsistencyTuning(Options, kw_only=True, frozen=True):
    """f(x_t, t) = f(x_r, r) for r < t on each trajectory of the parent's flow, so that f(x_T, T) is a sample; theory 4.10.

    Attributes:
        loss: pairs, of two times of a trajectory; tangent, their limit, by a central difference of the field (sCM,
            arXiv:2410.11081).
        along: the trajectories: those of the parent's field, from x_t by one step of Heun in sigma; or data, straight to x_r of
            the same datum and noise, which is right in the mean alone, but asks for no evaluation of the parent.
        mean, std: of ln sigma(t), normal, sigma in units of the data's spread.
        ratio, slope, stage_kimg: sigma(r) / sigma(t) is 1 - (1 + slope / (1 + e^sigma)) / ratio^(s + 1) in stage s, but not
            below 0; a stage lasts stage_kimg. In the first one r is mostly 0, and the target the datum itself.
        closest: the largest sigma(r) / sigma(t).
        huber: c of the loss (|f - f'|^2 + c^2)^1/2 - c, root mean squares over coordinates, in units of the data's spread.
        between: noise level from which the second evaluation starts, in units of the data's spread.
        difference: half the width of the tangent's central difference.
        tangent_warmup_kimg: in which the tangent's derivative of the field grows from nothing to all of it.
        normalise: of the tangent g, which becomes g / (|g| + normalise), |g| a root mean square, in velocity units.
    """

    samplers: ClassVar = (SAMPLER,)
    parents: ClassVar = {ROLE: "velocity"}

    loss: Literal["pairs", "tangent"] = "pairs"
    along: Literal["field", "data"] = "field"
    mean: float = -0.4
    std: Positive = 2.0
    ratio: Annotated[float, Meta(gt=1)] = 2.0
    slope: NotNegative = 8.0
    stage_kimg: Positive = 12.5
    closest: Annotated[float, Meta(gt=0, lt=1)] = 0.999
    huber: Positive = 1e-3
    between: Positive = 1.6
    difference: Annotated[float, Meta(gt=0, le=0.1)] = 0.01
    tangent_warmup_kimg: NotNegative = 10.0
    normalise: Positive = 0.1

    def check_samplers(self, samplers: dict[str, list[int | str]]) -> None:
        """Raise ConfigurationError for what a consistency model cannot do."""
        if set(samplers) - {SAMPLER} or not set(samplers.get(SAMPLER, [])) <= {1, 2} or not samplers:
            raise ConfigurationError(
                f"a method of kind 'consistency' draws samples by one or two evaluations, but has `samplers: {samplers}`",
                fix=f"`samplers: {{{SAMPLER}: [1, 2]}}`",
            )

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "ConsistencyObjective":
        parent = field_of(parents, data, "a consistency model is tuned from a velocity field")
        if not isinstance(parent.flow, LinearFlow):
            raise ConfigurationError(
                f"a consistency model has no flow '{parent.flow.name}'",
                why="its function is the denoiser, which a velocity of this flow does not determine",
                fix="a parent with another flow",
            )
        guide = parent.module if self.along == "field" else None
        return ConsistencyObjective(self, copy.deepcopy(parent.module), data.sigma_data, guide)

    def generator(self, averaged: "ConsistencyObjective") -> "ConsistencyGenerator":
        return ConsistencyGenerator(averaged)


class ConsistencyObjective(Objective):
    """What keeps f from being constant on trajectories: the distance at two times of one, or its derivative along one.

    Args:
        method: its options. field: where the tuning begins; its velocity gives f by the flow's formula for the denoiser, which
            is the identity at t = 0. scale: spread of the data, data units.
        guide: the field whose trajectories they are, which stays as it is; None: those of a datum and its noise.
    """

    turns = (Turn(SAMPLER, "field"),)
    networks = ("field.network",)
    advice = "lower training.learning_rate, or raise the method's `stage_kimg`"

    def __init__(self, method: ConsistencyTuning, field: VelocityField, scale: float, guide: VelocityField | None = None):
        super().__init__()
        self.method, self.field, self.scale = method, field.requires_grad_(True), scale
        self.guide = None if guide is None else guide.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "ConsistencyObjective":
        super().train(mode)
        if self.guide is not None:
            self.guide.eval()
        return self

    def check(self) -> None:
        self.field.flow.check_measured()

    def function(self, x: Tensor, t: float | Tensor, label: Tensor | None) -> Tensor:
        """f(x_t, t), like x."""
        flow: Any = self.field.flow
        return flow.denoiser_from_velocity(x, _evaluate(self.field, x, t, label), t)

    def levels(self, u: Tensor, kimg: float) -> tuple[Tensor, Tensor]:
        """(sigma(t), sigma(r)), [n] each, in units of the data's spread, from uniform numbers and the length trained so far."""
        how = self.method
        later = (how.mean + how.std * torch.special.ndtri(u)).exp()
        gap = (1 + how.slope * torch.sigmoid(-later)) * how.ratio ** -(int(kimg / how.stage_kimg) + 1)
        return later, later * (1 - gap).clamp(0, how.closest)

    def losses(self, turn: str, batch: Batch) -> Tensor:
        flow: Any = self.field.flow
        x0, kimg = batch.x, batch.step * batch.draw.batch / 1000
        later, earlier = self.levels(batch.draw.uniform("time"), kimg)
        t, r = (flow.time(self.scale * level).to(x0) for level in (later, earlier))
        v0 = flow.couple(x0, flow.noise(batch.draw, x0.shape[1:]).to(x0))
        x_t, v_t = flow.push(x0, v0, t)
        velocity = self._under_one_mask(batch)
        if self.method.loss == "tangent":
            return self._beside_its_tangent(velocity, x_t, v_t, t, kimg, batch.label) / later.to(x0)
        x_r = flow.push(x0, v0, r)[0] if self.guide is None else self._step(x_t, t, r, batch.label)
        end = flow.denoiser_from_velocity(x_t, velocity(x_t, t), t)
        with torch.no_grad():
            target = flow.denoiser_from_velocity(x_r, velocity(x_r, r), r)
        distance = (end - target).square().flatten(1).mean(1) / self.scale**2
        huber = (distance + self.method.huber**2).sqrt() - self.method.huber
        return huber / (later - earlier).to(x0)

    def tangent(self, velocity: Velocity, x: Tensor, t: Tensor, w: Tensor, part: float = 1.0) -> Tensor:
        """a df/dt along dx/dt = w, velocity units, where f is that of a velocity; its derivative is a central difference.

        Args:
            x, w: [n, *shape], data units, velocity units. t: [n].
            part: of the velocity's own derivative, in [0, 1].
        Source: theory 4.10.
        """
        flow: Any = self.field.flow
        a, b, _, b_dot = flow.coefficients(broadcast(t, x))
        dx, dt, h = a * b * w, (a * b).flatten(), self.method.difference
        change = (velocity(x + h * dx, t + h * dt) - velocity(x - h * dx, t - h * dt)) / (2 * h)
        return a * b_dot * (w - velocity(x, t)) + part * (a * b * flow.force(x, t) - change)

    def _beside_its_tangent(
        self, velocity: Velocity, x: Tensor, v: Tensor, t: Tensor, kimg: float, label: Tensor | None
    ) -> Tensor:
        """|V - (V + g)|^2, [n], whose second V and g have no gradient; g is the normalised tangent."""
        how = self.method
        now = velocity(x, t)
        with torch.no_grad():
            w = v if self.guide is None else self._guiding_velocity(x, t, label)
            g = self.tangent(velocity, x, t, w, min(1.0, kimg / how.tangent_warmup_kimg) if how.tangent_warmup_kimg else 1.0)
            g = g / (broadcast(g.square().flatten(1).mean(1).sqrt(), g) + how.normalise)
        return (now - now.detach() - g).square().flatten(1).mean(1)

    def _step(self, x: Tensor, t: Tensor, r: Tensor, label: Tensor | None) -> Tensor:
        """x_r from x_t along the guide's field by one step of Heun in the noise level: d(x/a) / d sigma = E[n | x]."""
        flow: Any = self.field.flow
        (a_t, b_t, *_), (a_r, b_r, *_) = (flow.coefficients(broadcast(time, x)) for time in (t, r))
        h = b_r / a_r - b_t / a_t
        slope = flow.noise_from_velocity(x, self._guiding_velocity(x, t, label), t)
        reached = a_r * (x / a_t + h * slope)
        there = flow.noise_from_velocity(reached, self._guiding_velocity(reached, r, label), r)
        return a_r * (x / a_t + h / 2 * (slope + there))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _guiding_velocity(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        with self.reduced():
            return _evaluate(self.guide, x, t, label).float()

    def _under_one_mask(self, batch: Batch) -> Velocity:
        """V(x, t) of the field, every time under the same dropout."""

        def velocity(x: Tensor, t: float | Tensor) -> Tensor:
            same = draws.seeded(x.device, batch.draw.seed, "consistency", "dropout", batch.step)
            with same, self.reduced():
                return _evaluate(self.field, x, t, batch.label).float()

        return velocity


def _evaluate(field: Any, x: Tensor, t: float | Tensor, label: Tensor | None) -> Tensor:
    return field(x, t, label if field.classes else None)  # type: ignore[no-any-return]


class ConsistencyGenerator(SamplesOnly):
    """Samples by one or two evaluations of f.

    Args:
        trained: the objective or its average.
    """

    what = "a consistency model"
    why = "f is the end of a trajectory, which tells nothing of the way"
    fix = "ask its parent, a method of kind 'velocity'"

    def __init__(self, trained: ConsistencyObjective):
        self.module, self.flow = trained, trained.field.flow
        self.shape, self.classes = trained.field.shape, trained.field.classes
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    @torch.inference_mode()
    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape]: f(x_T, T), with two evaluations noised again to the level `between` and f once more."""
        if sampler != SAMPLER or nfe not in (1, 2):
            raise NotOffered(
                f"a consistency model has no sampler '{sampler}' with nfe {nfe}",
                why="it maps noise to a sample in one evaluation, and in a second one from less noise",
                fix=f"ask for sampler '{SAMPLER}' with nfe 1 or 2; its parent has the others",
            )
        if self.sampling.guidance != 1:
            raise NotOffered("a consistency model has no guidance", fix="guidance 1; the parent's samples can be guided")
        label = classes_of(self.classes, seeds, label)
        device = next(self.module.parameters()).device
        parts = [torch.zeros(0, *self.shape, dtype=torch.float64, device=device)]
        for start in range(0, len(seeds), self.sampling.batch):
            part = slice(start, start + self.sampling.batch)
            classes = None if label is None else label[part].to(device)
            parts.append(self._draw(seeds[part], int(nfe), classes))
        return torch.cat(parts), int(nfe)

    def _draw(self, seeds: range, nfe: int, label: Tensor | None) -> Tensor:
        flow, device = self.flow, next(self.module.parameters()).device
        x = self.module.function(flow.terminal(flow.noise(SampleDraws(seeds), self.shape).to(device)), flow.horizon, label)
        if nfe == 1:
            return x
        again = flow.noise(SampleDraws(seeds, "again"), self.shape).to(device)
        t = flow.time(torch.tensor(self.module.scale * self.module.method.between, dtype=torch.float64))
        x, _ = flow.push(x, flow.couple(x, again), t.to(device))
        return self.module.function(x, t.to(device), label)
