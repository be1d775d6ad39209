"""Laws of the training times: from a uniform number in (0, 1) to t in [0, T]."""

import math

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.registry import Positive, Registry

LAWS: Registry = Registry("time law", "hamflow.flows", given=("flow", "u"))


def draw_times(entry: dict, flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """Times by the law of a parameter entry {law, ...}.

    Args:
        u: uniform numbers in (0, 1), [N]; stratified ones give stratified times.
    Returns: [N], in [0, flow.latest], time units.
    """
    options = dict(entry)
    return LAWS.build(options.pop("law"), flow=flow, u=u, **options).clamp(max=flow.latest)


@LAWS.register("uniform")
def uniform(flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """t ~ U[0, T]."""
    return flow.horizon * u


@LAWS.register("log_normal")
def log_normal(flow: HamiltonianFlow, u: Tensor, mean: float, std: Positive) -> Tensor:
    """ln sigma ~ N(mean, std^2) for the noise-to-signal ratio sigma(t), data units (Karras et al. 2022)."""
    return flow.time((mean + std * torch.special.ndtri(u)).exp())


@LAWS.register("log_uniform")
def log_uniform(flow: HamiltonianFlow, u: Tensor, decades: Positive) -> Tensor:
    """t log-uniform on [T 10^-decades, T]."""
    return flow.horizon * 10 ** (decades * (u - 1))


@LAWS.register("log_uniform_sigma")
def log_uniform_sigma(flow: HamiltonianFlow, u: Tensor, low: Positive, high: Positive | None = None) -> Tensor:
    """ln sigma uniform on [ln low, ln high], data units; high: by default that of the horizon, which is then finite."""
    top = flow.sigma(torch.tensor(flow.horizon, dtype=u.dtype)).item() if high is None else high
    if not (low < top < math.inf):
        raise ConfigurationError(
            f"times of law 'log_uniform_sigma' need low < high < infinity, got low = {low}, high = {top}",
            fix="`times.low` below `times.high`; without `high`, a flow that ends at a finite noise level",
        )
    return flow.time(low * (top / low) ** u)
