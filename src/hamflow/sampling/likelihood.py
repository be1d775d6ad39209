"""Exact log-densities of a velocity field, by the instantaneous change of variables."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hamflow.draws import generator
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.flows import GaussianFlow, HamiltonianFlow
from hamflow.sampling.grids import time_grid
from hamflow.sampling.solvers import count_evaluations, solve

EXACT_UP_TO = 16  # coordinates; an exact trace costs a backward pass each

Field = Callable[[Tensor, Tensor], Tensor]


class LogDensity(NamedTuple):
    """What `log_density` finds.

    Attributes:
        values: log p(x_0), nats, float64 [N]. standard_errors: of the random probes, [N]; 0 for an exact trace.
        noise: x_T, [N, *dims]. nfe: evaluations of the field, each with its backward passes.
    """

    values: Tensor
    standard_errors: Tensor
    noise: Tensor
    nfe: int


def log_density(
    velocity: Field,
    flow: HamiltonianFlow,
    x: Tensor,
    *,
    sampler: str = "rk4",
    steps: int = 50,
    probes: int | None = None,
    terminal: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> LogDensity:
    """log p(x_0) = log p_T(x_T) + int_0^T div V(x_t, t) dt along dx/dt = V from x_0 (theory 6.6).

    Args:
        velocity: V(x, t), differentiable in x; V of a sample depends on this sample alone.
        x: x_0, [N, *dims], data units.
        sampler, steps: of `solve`, on the EDM grid; dopri5 chooses its own steps.
        probes: random signs for each sample's trace, >= 2 (Hutchinson), on one common path; 0: the exact trace; None: exact up
            to 16 coordinates, else 8 probes.
        terminal: log p_T, [N, *dims] -> [N]; None: that of the flow's start. For `diffusion`, whose x_T is normal only in the
            limit, this is the density of what the sampler draws.
        seed: of the probes.
    Raises:
        ConfigurationError: one probe, or fewer than none. NotOffered: the flow does not start from a normal law.
    Source: Chen et al. 2018 (arXiv:1806.07366), theorem 1; Grathwohl et al. 2018 (arXiv:1810.01367) for the random probes.
    """
    x = x.detach().double()
    count, shape, dimension = len(x), x.shape[1:], x[0].numel()
    if probes is None:
        probes = 0 if dimension <= EXACT_UP_TO else 8
    if probes < 0 or probes == 1:
        raise ConfigurationError(f"`probes` must be 0 (exact) or at least 2, got {probes}", why="one has no standard error")
    signs = generator(seed, "likelihood", "probes").integers(0, 2, (probes, count, dimension)) * 2.0 - 1
    directions = torch.from_numpy(signs).to(x) if probes else torch.eye(dimension).to(x)[:, None].expand(-1, count, -1)

    def joint(state: Tensor, t: Tensor) -> Tensor:
        """V, and each direction's part of its trace."""
        with torch.enable_grad():
            point = state[:, :dimension].reshape(count, *shape).detach().requires_grad_()
            v = velocity(point, t).double()
            parts = [_quadratic(v, point, e) for e in directions.unbind(0)]
        traces = torch.stack(parts, 1)
        return torch.cat([v.detach().flatten(1), traces if probes else traces.sum(1, keepdim=True)], 1)

    counted = count_evaluations(joint)
    start = torch.cat([x.flatten(1), torch.zeros(count, probes or 1, dtype=x.dtype, device=x.device)], 1)
    with torch.no_grad():
        end = solve(sampler, counted, start, time_grid(flow, steps).flip(0))
    noise, gains = end[:, :dimension].reshape(count, *shape), end[:, dimension:]
    values = (terminal or normal_start(flow))(noise) + gains.mean(1)
    errors = gains.std(1) / math.sqrt(probes) if probes else torch.zeros_like(values)
    return LogDensity(values, errors, noise, counted.count)


def normal_start(flow: HamiltonianFlow) -> Callable[[Tensor], Tensor]:
    """The log-density of the flow's start x_T. Raises NotOffered, if that is not normal."""
    if not isinstance(flow, GaussianFlow):
        raise NotOffered(f"flow '{flow.name}' does not start from a normal law, so its likelihood is not offered")
    spread = float(flow.terminal(torch.ones(1, dtype=torch.float64)))  # x_T = spread n

    def density(x: Tensor) -> Tensor:
        z = x.flatten(1) / spread
        return -z.square().sum(1) / 2 - z.shape[1] * math.log(spread * math.sqrt(2 * math.pi))

    return density


def dequantise(x: Tensor, width: float, seed: int = 0) -> Tensor:
    """Values on a lattice, spread evenly over their cells: x + width (u - 1/2), float64; of images 2 / 255."""
    u = generator(seed, "likelihood", "dequantise").random(tuple(x.shape))
    return x.double() + width * (torch.from_numpy(u).to(x.device) - 0.5)


def bits_per_dimension(values: Tensor, dimension: int, width: float) -> Tensor:
    """Bits a coordinate, [N], from log p of dequantised values: an upper bound of the lattice's own, in the mean (Jensen).

    Args:
        values: log p, nats, [N]. width: of a cell, data units.
    Source: Theis, van den Oord, Bethge 2016 (arXiv:1511.01844).
    """
    return -(values / dimension + math.log(width)) / math.log(2)


def _quadratic(v: Tensor, point: Tensor, direction: Tensor) -> Tensor:
    """e . (dV/dx) e of each sample, [N]."""
    (pulled,) = torch.autograd.grad(v, point, direction.reshape(v.shape), retain_graph=True)
    return (pulled.flatten(1) * direction).sum(1)
