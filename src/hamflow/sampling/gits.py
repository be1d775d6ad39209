"""Time grids by dynamic programming along a precise trajectory (GITS)."""

import itertools

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.flows.base import Velocity
from hamflow.sampling.grids import time_grid


@torch.no_grad()
def gits_grid(velocity: Velocity, flow: HamiltonianFlow, starts: Tensor, steps: int, fine: Tensor | None = None) -> Tensor:
    """The sub-grid of a fine grid whose Euler steps leave the precise trajectory least, summed over the steps.

    Args:
        velocity: V(x, t). starts: x_T, [N, *dims]; a few hundred. steps: of the grid, at least 1.
        fine: decreasing times, [K + 1], K >= steps; None: EDM's with 60 steps. They cost 2 K evaluations (Heun).
    Returns: float64, [steps + 1].
    Raises: ConfigurationError: more steps than the fine grid has, or none.
    Source: Chen et al. 2024 (arXiv:2405.11326), with the cost of a step measured from the trajectory itself.
    """
    fine = time_grid(flow, 60) if fine is None else fine
    if not 1 <= steps < len(fine):
        raise ConfigurationError(f"a grid of {steps} steps cannot be chosen from one of {len(fine) - 1}")
    x, states, slopes = starts.double(), [], []
    for t, after in itertools.pairwise(fine.to(starts.device)):
        slope = velocity(x, t)
        states.append(x)
        slopes.append(slope)
        x = x + (after - t) / 2 * (slope + velocity(x + (after - t) * slope, after))
    states.append(x)
    cost = torch.full((len(fine), len(fine)), float("inf"), dtype=torch.float64)
    for i, j in itertools.combinations(range(len(fine)), 2):
        off = states[i] + (fine[j] - fine[i]) * slopes[i] - states[j]
        cost[i, j] = off.square().flatten(1).mean(1).sqrt().mean()
    total, came = cost[0], []  # of the best way to each time in 1, 2, ... steps
    for _ in range(steps - 1):
        total, before = (total[:, None] + cost).min(0)
        came.append(before)
    way = [len(fine) - 1]
    for before in reversed(came):
        way.append(int(before[way[-1]]))
    return fine[[0, *reversed(way)]].double()
