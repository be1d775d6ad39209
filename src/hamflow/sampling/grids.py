"""Time grids for the solvers."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.registry import check_grid

KINDS = ("edm", "uniform", "power")
POWER = 2  # of the grid `power`: its steps shrink linearly towards the data


def time_grid(
    flow: HamiltonianFlow,
    steps: int,
    kind: str | Sequence[float] = "edm",
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    start: float | None = None,
) -> Tensor:
    """Decreasing times from the flow's horizon to 0.

    `edm` spaces sigma^(1/rho) evenly from sigma_max to sigma_min and then adds 0 (Karras et al. 2022, eq. 5), each sigma
    mapped to the flow's time; `uniform` spaces t, `power` t^(1/2). Numbers that fall from 1 to 0 are t / T at evenly spaced
    shares of the steps, with a monotone cubic between (Fritsch and Butland 1984): as many as times, they are the times.
    The first time is the horizon itself, where the law of x_T is known exactly.

    Args:
        steps: number of intervals, >= 1.
        sigma_min, sigma_max: noise-to-signal ratios, data units; sigma_max is cut to that of the horizon.
        start: the first time, time units; None: the horizon.
    Returns: float64, [steps + 1].
    Raises: ConfigurationError: steps < 1, an unknown kind, or numbers that do not fall from 1 to 0.
    """
    if steps < 1:
        raise ConfigurationError(f"a time grid needs at least 1 step, got {steps}")
    first = flow.horizon if start is None else start
    if not isinstance(kind, str):
        check_grid(kind)
        share = PchipInterpolator(np.linspace(0, 1, len(kind)), kind)(np.linspace(0, 1, steps + 1))
        share[0], share[-1] = 1, 0
        return first * torch.from_numpy(share)
    if kind == "uniform":
        return torch.linspace(first, 0, steps + 1, dtype=torch.float64)
    if kind == "power":
        return first * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** POWER
    if kind != "edm":
        raise ConfigurationError(f"unknown time grid '{kind}'", fix=f"one of {', '.join(KINDS)}")
    largest = flow.sigma(torch.tensor(first, dtype=torch.float64)).abs().clamp(max=sigma_max)
    ramp = torch.linspace(0, 1, max(steps, 2), dtype=torch.float64)[:steps]
    sigma = (largest ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - largest ** (1 / rho))) ** rho
    times = torch.cat([flow.time(sigma), torch.zeros(1, dtype=torch.float64)])
    times[0] = first
    return times
