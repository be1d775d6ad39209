"""Velocity regression: every Hamiltonian generative flow, from diffusion to reflection."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow import flows, networks, parameterisation
from hamflow.draws import SampleDraws
from hamflow.dynamics import broadcast
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.flows import GaussianFlow, HamiltonianFlow, velocity_loss
from hamflow.flows.base import FLOWS
from hamflow.flows.colour import Basis, Colour
from hamflow.flows.learned_times import LearnedTimes
from hamflow.flows.times import LAWS, draw_times
from hamflow.flows.uncertainty import Uncertainty
from hamflow.methods.base import METHODS, Facts, Generator, Sampling, classes_of
from hamflow.parameterisation import Parameterisation
from hamflow.parameterisation.base import PARAMETERISATIONS
from hamflow.registry import Fraction, NotNegative, Options
from hamflow.sampling.budget import ADAPTIVE, steps_for
from hamflow.sampling.grids import time_grid
from hamflow.sampling.learned import LEARNED, LearnedSolver
from hamflow.sampling.likelihood import LogDensity, log_density
from hamflow.sampling.solvers import TELEPORTED, check_flow, count_evaluations, solve
from hamflow.sampling.teleportation import Teleport
from hamflow.training import ranks
from hamflow.training.changes import UNCHANGED, UNLABELLED, Changes
from hamflow.training.fit import Batch, Objective, Rows, Turn

ROLE = "velocity"  # of the parent of a method that starts from a trained field


@METHODS.register("velocity")
class VelocityRegression(Options, kw_only=True, frozen=True):
    """V(x_t, t) by regression on v_t; samples by running dx/dt = V backwards (arXiv:2410.20470).

    Attributes:
        flow: {name, ...}, what carries data to noise. parameterisation: what the network predicts.
        times: {law, ...}, the law of the training times.
        strata: of this law, in which the spread of the loss's gradient is estimated while training: times are drawn in
            proportion to it, with weights that leave the loss what it is; 0: as the law says.
        uncertainty: whether a learned function of the time weighs the loss, so that every time counts alike.
        loss_metric: m, of a loss r' S^-m r of the residual r, for data of covariance S, at unit mean weight; 0: |r|^2. It
            changes what a network learns first, not the velocity that it aims at.
        ridge, basis: of S, see `hamflow.flows.colour.Colour`.
        augmentation: p, of `hamflow.training.augmentation`: images are changed, and the network is told how, so that samples
            are not; 0: none. It needs a network with the option `augmentation`.
        mirror: whether half of the images, at random, are mirrored, of which the network is told nothing: samples are, too.
        label_dropping: the probability that a conditional network is not told the class: it then learns the law of all
            classes, too, which guidance needs.
    """

    flow: Annotated[dict[str, Any], FLOWS.entry("name")]
    parameterisation: Annotated[str, PARAMETERISATIONS.name()]
    times: Annotated[dict[str, Any], LAWS.entry("law")]
    strata: Annotated[int, Meta(ge=0, le=1024)] = 0
    uncertainty: bool = False
    loss_metric: Annotated[float, Meta(ge=0, le=1)] = 0.0
    ridge: NotNegative = 0.01
    basis: Basis = "auto"
    augmentation: Annotated[float, Meta(ge=0, le=1)] = 0.0
    mirror: bool = False
    label_dropping: Fraction = 0.0

    def check(self, box: tuple[float, float]) -> None:
        """Raise ConfigurationError for a flow that cannot carry data in a box, or that the parameterisation does not fit."""
        parameterisation.build(self.parameterisation, flows.resolve(self.flow, 1.0, box), 1.0)

    def check_network(self, spec: Mapping[str, Any]) -> None:
        """Raise ConfigurationError for a network that cannot be told what this method tells it."""
        if self.mirror and networks.sample_dims(spec) != 3:
            raise ConfigurationError("`mirror` is for images, the data are points", fix="leave it out")
        if self.augmentation and not networks.takes_augmentation(spec):
            raise ConfigurationError(
                f"`augmentation` = {self.augmentation:g} needs a network that is told how its images were changed, which this "
                f"one of kind '{spec['kind']}' is not",
                why="the changes would leak: it would draw turned and stretched images",
                fix="a network of kind ddpmpp or ncsnpp with `augmentation: true`; or `mirror: true` instead",
            )

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "VelocityObjective":
        self.check_network(data.network)
        flow = flows.resolve(self.flow, data.sigma_data, data.box).for_shape(data.shape)
        scheme = parameterisation.build(self.parameterisation, flow, data.sigma_data)
        network = networks.build(data.network, data.shape, data.classes, seed)
        metric = Colour(data.shape, -self.loss_metric, self.ridge, self.basis) if self.loss_metric else None
        field = VelocityField(flow, scheme, network, data.shape, data.classes)
        field.uncertainty = Uncertainty() if self.uncertainty else None
        changes = Changes(self.augmentation, self.mirror, self.label_dropping)
        return VelocityObjective(field, self.times, metric, changes, LearnedTimes(self.strata) if self.strata else None)

    def generator(self, averaged: "VelocityObjective") -> "FlowGenerator":
        return FlowGenerator(averaged.field, bool(self.label_dropping))


class VelocityField(nn.Module):
    """V(x, t, label): a flow, what the network means in it, and the network.

    Args:
        shape: of one sample. classes: number of class labels, 0: unconditional.

    Attributes:
        uncertainty: of its loss, learned beside the network; None: there is none.
    """

    def __init__(
        self, flow: HamiltonianFlow, scheme: Parameterisation, network: nn.Module, shape: tuple[int, ...], classes: int = 0
    ):
        super().__init__()
        self.uncertainty: Uncertainty | None = None
        self.flow, self.parameterisation, self.network = flow, scheme, network
        self.shape, self.classes = shape, classes

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        """V(x_t, t), in x's dtype; the network itself computes in its own. augmentation: how x_0 was changed, [N, 9]."""
        told = () if augmentation is None else (augmentation,)
        return self.parameterisation.velocity(partial(self._network_in_its_dtype, told), x, t, label)

    def _network_in_its_dtype(self, told: tuple[Tensor, ...], x: Tensor, noise_label: Tensor, label: Tensor | None) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return self.network(x.to(dtype), noise_label.to(dtype), label, *told).to(x.dtype)


class VelocityObjective(Objective):
    """The weighted velocity loss.

    Args:
        times: {law, ...}. metric: a matrix M, for the loss r' M r of the residual r; None: |r|^2.
        changes: of the data, at random. learned_times: the density of the law's times; None: as the law says.
    """

    turns = (Turn("velocity", "field"),)
    networks = ("field.network",)

    def __init__(
        self,
        field: VelocityField,
        times: Mapping[str, Any],
        metric: Colour | None = None,
        changes: Changes = UNCHANGED,
        learned_times: LearnedTimes | None = None,
    ):
        super().__init__()
        self.field, self.times, self.metric, self.changes = field, dict(times), metric, changes
        self.learned_times = learned_times

    def check(self) -> None:
        self.field.flow.check_measured()

    def begin(self, rows: Rows) -> None:
        self.field.flow.measure(rows)
        if self.metric is not None:
            self.metric.measure(rows)

    def _root_of_metric(self, residual: Tensor) -> Tensor:
        return residual if self.metric is None else self.metric.apply_power(residual, 0.5)

    def losses(self, turn: str, batch: Batch) -> Tensor:
        field = self.field
        x0, label, told = self.changes(batch)
        u, inverse = batch.draw.uniform("time"), None
        if self.learned_times is not None:
            u, inverse = self.learned_times.draw(u)
        t = draw_times(self.times, field.flow, u).to(x0)
        v0 = field.flow.couple(x0, field.flow.noise(batch.draw, x0.shape[1:]))

        def predict(x_t: Tensor, t: float | Tensor) -> Tensor:
            with self.reduced():
                return field(x_t, t, label if field.classes else None, told).float()  # the loss itself stays in float32

        found = velocity_loss(predict, field.flow, x0, v0, t, field.parameterisation.weight, self._root_of_metric)
        weighed = found if field.uncertainty is None else field.uncertainty(u, found)
        if self.learned_times is None or inverse is None:
            return weighed
        self.learned_times.note(u, found)
        return weighed * inverse.to(found)

    def after(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        if self.learned_times is not None:
            self.learned_times.fold(batch.draw.batch, ranks.place()[1])
        return {}


class FlowGenerator:
    """What a velocity field can do.

    Args:
        field: V(x, t, label) of one method on one data set.
        unlabelled: whether a conditional field has also learned samples without their class, of label -1.
    """

    def __init__(self, field: VelocityField, unlabelled: bool = False):
        self.module, self.flow, self.shape, self.classes = field, field.flow, field.shape, field.classes
        self.unlabelled = unlabelled
        self.sampling = Sampling()
        self.solver: LearnedSolver | None = None  # of sampler `bns`
        self.teleport: Teleport | None = None  # the start of the samplers called teleported_...
        self.metadata: dict[str, Any] = {}

    def velocity(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """V(x_t, t), in x's dtype.

        Args:
            x: [N, *shape], data units. t: scalar or [N], time units. label: int64 [N] for a conditional model.
        """
        return self.module(x, t, label)

    def score(self, y: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The score at y of the data smoothed by noise of level sigma, as the model implies it; arguments as `denoise`."""
        return self.flow.smoothed_score(lambda x, t: self.velocity(x, t, label), y, sigma)

    def denoise(self, y: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """D(y; sigma) = E[x_0 | x_0 + sigma n = y] that the model implies.

        Raises:
            NotOffered: the flow has no denoiser (reflection).
        Source: Tweedie's formula, D = y + sigma^2 score.
        """
        if not isinstance(self.flow, GaussianFlow):
            raise NotOffered(f"flow '{self.flow.name}' implies no denoiser of normal noise: its velocity determines none")
        return y + broadcast(sigma, y) ** 2 * self.score(y, sigma, label)

    def log_density(self, x: Tensor, label: Tensor | None = None, **options: Any) -> LogDensity:
        """log p(x_0) of data, nats; options as `hamflow.sampling.likelihood.log_density`.

        Args:
            x: [N, *shape], data units. label: int64 [N] for a conditional model.
        Raises:
            NotOffered: the flow does not start from a normal law (reflection).
        """
        return log_density(lambda y, t: self.velocity(y, t, label), self.flow, x, **options)

    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape], and the NFE that each cost (the largest, if the sampler is adaptive).

        With `sampling.guidance` w other than 1 a sampler follows V(x) + w (V(x, label) - V(x)), V(x) without a class: two
        evaluations of the network where it takes one otherwise, and both are counted: heun with nfe 34 has 9 steps.

        Args:
            seeds: one a sample. nfe: evaluations of the network that each sample may cost.
            label: int64 [n], the classes, or -1 for a sample of all classes, if the model has learned that; None: for a
                conditional model the class is the seed modulo their number, so that consecutive seeds have them equally often.
        Raises:
            ConfigurationError: a budget that the sampler cannot spend, a label that the model does not know, guidance that it
                has not learned.
        """
        how, guided = self.sampling, self.sampling.guidance != 1
        label = classes_of(self.classes, seeds, label, self.unlabelled)
        self._check_guidance(sampler)
        steps: int | str
        integrate: Callable[..., Tensor]
        teleport = self._teleport(sampler)
        if sampler == LEARNED:
            steps = nfe
            integrate = LearnedSolver.fitting(self.solver, self.flow, nfe).__call__
        else:
            steps = steps_for(sampler, nfe, 2 if guided else 1)
            start = teleport.time(self.flow) if teleport else None
            count = steps if isinstance(steps, int) else 2
            times = time_grid(self.flow, count, how.grid, how.rho, how.sigma_min, how.sigma_max, start)
            integrate = partial(solve, sampler.removeprefix(TELEPORTED), times=times, flow=self.flow)
        parts, spent = [torch.zeros(0, *self.shape, dtype=torch.float64)], 0
        for start in range(0, len(seeds), how.batch):
            part = slice(start, start + how.batch)
            classes = None if label is None else label[part]
            samples, cost = self._sample(integrate, teleport, seeds[part], classes)
            if steps != ADAPTIVE and cost != nfe:
                raise AssertionError(f"{sampler} spent {cost} evaluations instead of {nfe}")
            parts.append(samples)
            spent = max(spent, cost)
        return torch.cat([part.to(parts[-1].device) for part in parts]), spent

    def _check_guidance(self, sampler: str) -> None:
        """Raise ConfigurationError for guidance of a model that has not learned what it needs."""
        if self.sampling.guidance == 1:
            return
        what = f"guidance {self.sampling.guidance:g} is asked for, but "
        if not self.classes:
            raise ConfigurationError(f"{what}the model was trained without classes", fix="guidance 1, or a conditional model")
        if not self.unlabelled:
            raise ConfigurationError(
                f"{what}the model always was told the class",
                why="guidance compares the velocity of a class with that of all classes, which the model has not learned",
                fix="guidance 1, or train with `label_dropping: 0.1` in the method's entry",
            )
        if sampler == LEARNED:
            raise ConfigurationError(f"{what}the solver of '{LEARNED}' was learned without", fix="another sampler")

    def _teleport(self, sampler: str) -> Teleport | None:
        if not sampler.startswith(TELEPORTED):
            return None
        check_flow(sampler, self.flow)
        if self.teleport is None:
            raise ConfigurationError(
                f"sampler '{sampler}' needs the mean and covariance of the data, and this generator has none",
                fix="`generator.teleport = Teleport.of(data, sigma)`, or `sampling.teleport` in the parameters",
            )
        return self.teleport

    @torch.inference_mode()
    def _sample(
        self, integrate: Callable[..., Tensor], teleport: Teleport | None, seeds: range, label: Tensor | None
    ) -> tuple[Tensor, int]:
        device, weight = next(self.module.parameters()).device, self.sampling.guidance
        label = None if label is None else label.to(device)
        evaluate = count_evaluations(self.velocity)

        def velocity(x: Tensor, t: float | Tensor) -> Tensor:
            along = evaluate(x, t, label)
            if label is None or weight == 1:
                return along
            return torch.lerp(evaluate(x, t, torch.full_like(label, UNLABELLED)), along, weight)

        start = self.flow.terminal(self.flow.noise(SampleDraws(seeds), self.shape).to(device))
        if teleport:
            start = teleport(self.flow, start)
        return self.flow.settle(integrate(self.flow.unfold(velocity), start)), evaluate.count


def field_of(parents: Mapping[str, Generator], data: Facts, what: str) -> FlowGenerator:
    """The parent of role `velocity`, whose field a method starts from.

    Args:
        what: a clause that says why the method needs one.
    Raises:
        ConfigurationError: no such parent, one without a velocity field, or one of samples of another shape or other classes.
    """
    parent = parents.get(ROLE)
    if not isinstance(parent, FlowGenerator):
        raise ConfigurationError(
            f"{what}, and no parent of this method has one",
            fix=f"`parents: {{{ROLE}: METHOD}}` with a method of kind 'velocity'",
        )
    if (parent.shape, parent.classes) != (data.shape, data.classes):
        raise ConfigurationError(
            f"the parent's samples have shape {list(parent.shape)} and {parent.classes} classes, those of '{data.name}' "
            f"{list(data.shape)} and {data.classes}",
            fix="a parent that was trained on the same data set",
        )
    return parent
