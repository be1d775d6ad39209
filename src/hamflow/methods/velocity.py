"""Velocity regression: every Hamiltonian generative flow, from diffusion to reflection."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
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
from hamflow.flows.times import LAWS, draw_times
from hamflow.methods.base import METHODS, Facts, Generator, Sampling
from hamflow.parameterisation import Parameterisation
from hamflow.parameterisation.base import PARAMETERISATIONS
from hamflow.registry import NotNegative, Options
from hamflow.sampling.budget import ADAPTIVE, steps_for
from hamflow.sampling.grids import time_grid
from hamflow.sampling.learned import LEARNED, LearnedSolver
from hamflow.sampling.likelihood import LogDensity, log_density
from hamflow.sampling.solvers import TELEPORTED, check_flow, count_evaluations, solve
from hamflow.sampling.teleportation import Teleport
from hamflow.training.fit import Batch, Objective, Rows, Turn


@METHODS.register("velocity")
class VelocityRegression(Options, kw_only=True, frozen=True):
    """V(x_t, t) by regression on v_t; samples by running dx/dt = V backwards (arXiv:2410.20470).

    Attributes:
        flow: {name, ...}, what carries data to noise. parameterisation: what the network predicts.
        times: {law, ...}, the law of the training times.
        loss_metric: m, of a loss r' S^-m r of the residual r, for data of covariance S, at unit mean weight; 0: |r|^2. It
            changes what a network learns first, not the velocity that it aims at.
        ridge, basis: of S, see `hamflow.flows.colour.Colour`.
    """

    flow: Annotated[dict[str, Any], FLOWS.entry("name")]
    parameterisation: Annotated[str, PARAMETERISATIONS.name()]
    times: Annotated[dict[str, Any], LAWS.entry("law")]
    loss_metric: Annotated[float, Meta(ge=0, le=1)] = 0.0
    ridge: NotNegative = 0.01
    basis: Basis = "auto"

    def check(self, box: tuple[float, float]) -> None:
        """Raise ConfigurationError for a flow that cannot carry data in a box, or that the parameterisation does not fit."""
        parameterisation.build(self.parameterisation, flows.resolve(self.flow, 1.0, box), 1.0)

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "VelocityObjective":
        flow = flows.resolve(self.flow, data.sigma_data, data.box).for_shape(data.shape)
        scheme = parameterisation.build(self.parameterisation, flow, data.sigma_data)
        network = networks.build(data.network, data.shape, data.classes, seed)
        metric = Colour(data.shape, -self.loss_metric, self.ridge, self.basis) if self.loss_metric else None
        return VelocityObjective(VelocityField(flow, scheme, network, data.shape, data.classes), self.times, metric)

    def generator(self, averaged: "VelocityObjective") -> "FlowGenerator":
        return FlowGenerator(averaged.field)


class VelocityField(nn.Module):
    """V(x, t, label): a flow, what the network means in it, and the network.

    Args:
        shape: of one sample. classes: number of class labels, 0: unconditional.
    """

    def __init__(
        self, flow: HamiltonianFlow, scheme: Parameterisation, network: nn.Module, shape: tuple[int, ...], classes: int = 0
    ):
        super().__init__()
        self.flow, self.parameterisation, self.network = flow, scheme, network
        self.shape, self.classes = shape, classes

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """V(x_t, t), in x's dtype; the network itself computes in its own."""
        return self.parameterisation.velocity(self._network_in_its_dtype, x, t, label)

    def _network_in_its_dtype(self, x: Tensor, noise_label: Tensor, label: Tensor | None) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return self.network(x.to(dtype), noise_label.to(dtype), label).to(x.dtype)


class VelocityObjective(Objective):
    """The weighted velocity loss.

    Args:
        times: {law, ...}. metric: a matrix M, for the loss r' M r of the residual r; None: |r|^2.
    """

    turns = (Turn("velocity", "field"),)

    def __init__(self, field: VelocityField, times: Mapping[str, Any], metric: Colour | None = None):
        super().__init__()
        self.field, self.times, self.metric = field, dict(times), metric

    def check(self) -> None:
        self.field.flow.check_measured()

    def begin(self, rows: Rows) -> None:
        self.field.flow.measure(rows)
        if self.metric is not None:
            self.metric.measure(rows)

    def _root_of_metric(self, residual: Tensor) -> Tensor:
        return residual if self.metric is None else self.metric.apply_power(residual, 0.5)

    def losses(self, turn: str, batch: Batch) -> Tensor:
        field, x0 = self.field, batch.x
        t = draw_times(self.times, field.flow, batch.draw.uniform("time")).to(x0)
        v0 = field.flow.couple(x0, field.flow.noise(batch.draw, x0.shape[1:]))
        label = batch.label if field.classes else None

        def predict(x_t: Tensor, t: float | Tensor) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16) if x_t.is_cuda else nullcontext():
                return field(x_t, t, label).float()  # the loss itself stays in float32

        return velocity_loss(predict, field.flow, x0, v0, t, field.parameterisation.weight, self._root_of_metric)


class FlowGenerator:
    """What a velocity field can do.

    Args:
        field: V(x, t, label) of one method on one data set.
    """

    def __init__(self, field: VelocityField):
        self.module, self.flow, self.shape, self.classes = field, field.flow, field.shape, field.classes
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
        """Samples, float64 [n, *shape], and the NFE that each cost (the largest, if the sampler is adaptive)."""
        how = self.sampling
        steps: int | str
        integrate: Callable[..., Tensor]
        teleport = self._teleport(sampler)
        if sampler == LEARNED:
            steps = nfe
            integrate = LearnedSolver.fitting(self.solver, self.flow, nfe).__call__
        else:
            steps = steps_for(sampler, nfe)
            start = teleport.time(self.flow) if teleport else None
            count = steps if isinstance(steps, int) else 2
            times = time_grid(self.flow, count, how.grid, how.rho, how.sigma_min, how.sigma_max, start)
            integrate = partial(solve, sampler.removeprefix(TELEPORTED), times=times, flow=self.flow)
        if label is None and self.classes:
            label = torch.tensor([seed % self.classes for seed in seeds])
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
        device = next(self.module.parameters()).device
        label = None if label is None else label.to(device)
        velocity = count_evaluations(self.flow.unfold(lambda x, t: self.velocity(x, t, label)))
        start = self.flow.terminal(self.flow.noise(SampleDraws(seeds), self.shape).to(device))
        if teleport:
            start = teleport(self.flow, start)
        return self.flow.settle(integrate(velocity, start)), velocity.count
