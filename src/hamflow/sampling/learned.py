"""Learned solvers: the times and coefficients of a few evaluations, fitted to precise solutions of one field."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hamflow.errors import CheckpointError, ConfigurationError, DivergenceError
from hamflow.files import load_tensors, save_tensors
from hamflow.flows import HamiltonianFlow
from hamflow.sampling.grids import time_grid
from hamflow.sampling.solvers import adams_bashforth_weights, solve

LEARNED = "bns"  # the sampler of a generator that has a learned solver
PAIRS_AT_A_TIME = 128

Field = Callable[[Tensor, Tensor], Tensor]


class LearnedSolver(NamedTuple):
    """x_{i+1} = x_0 + sum_{j <= i} b_ij V(x_j, t_j): a bespoke non-stationary solver with a_i = 1 (arXiv:2403.01329, eq. 11).

    Attributes:
        times: float64 [n + 1], time units, from the horizon to 0; the last is no evaluation.
        weights: b, float64 [n, n], lower triangular, time units.
        flow: {name, **options}, of the field that it was fitted to.
    """

    times: Tensor
    weights: Tensor
    flow: dict[str, Any]

    @property
    def nfe(self) -> int:
        """Evaluations of the field."""
        return len(self.weights)

    def __call__(self, velocity: Field, x: Tensor) -> Tensor:
        """The state at t = 0, float64, from x at the horizon, [N, *dims]."""
        return run(velocity, x.double(), self.times.to(x.device), self.weights.to(x.device))

    def save(self, path: str | Path) -> None:
        """Write it, as a checkpoint is written: complete or not at all, with a checksum."""
        save_tensors(path, {"times": self.times, "weights": self.weights}, {"kind": "solver", "flow": self.flow})

    @classmethod
    def load(cls, path: str | Path) -> "LearnedSolver":
        """Read it. Raises CheckpointError: absent, truncated, altered, or no solver."""
        tensors, metadata = load_tensors(path)
        times: Any
        weights: Any
        flow: Any
        times, weights, flow = tensors.get("times"), tensors.get("weights"), metadata.get("flow")
        right = metadata.get("kind") == "solver" and isinstance(flow, dict) and times is not None and weights is not None
        if right:
            n = len(weights) if weights.ndim else 0
            right = weights.shape == (n, n) and times.shape == (n + 1,) and n > 0
            right = right and all(part.dtype == torch.float64 and bool(part.isfinite().all()) for part in (times, weights))
            right = right and bool((times.diff() < 0).all())
        if not right:
            raise CheckpointError(f"{path} is no learned solver", fix="learn it again with `hamflow.methods.solver.learn`")
        return cls(times, weights, flow)

    @staticmethod
    def fitting(solver: "LearnedSolver | None", flow: HamiltonianFlow, nfe: int | str) -> "LearnedSolver":
        """The solver, if it is of this flow and this number of evaluations. Raises ConfigurationError otherwise."""
        fix = "`generator.solver = LearnedSolver.load(path)`, after `learn` for this flow and nfe"
        if solver is None:
            raise ConfigurationError(f"sampler '{LEARNED}' needs a learned solver, and this generator has none", fix=fix)
        if solver.flow != _facts(flow):
            raise ConfigurationError(
                f"the learned solver is of flow {solver.flow}, not of {_facts(flow)}",
                why="its times and coefficients are those of one field",
                fix=fix,
            )
        if solver.nfe != nfe:
            raise ConfigurationError(f"the learned solver spends {solver.nfe} evaluations; got nfe = {nfe!r}", fix=fix)
        return solver


class SolverWeights(nn.Module):
    """What is learned of a solver: the logarithms of the lengths of its steps, and its coefficients, as changes from a start.

    The start is Adams-Bashforth of order 3 on the grid of `begin`. The times are a softmax of log lengths, so that they fall
    from the horizon to 0. A coefficient is counted in lengths of the first grid's step that its evaluation begins, and moves
    `PACE` times as fast as a log length: both are then learned at one rate, whatever the unit of time.

    Args:
        nfe: evaluations, >= 1. times_only: the coefficients stay Adams-Bashforth's of the times (as LD3, arXiv:2410.10356).
    """

    PACE = 6.0  # 6 and 20 end at one error on exact velocities, 1 stops at 1.3 times it with 5 evaluations

    start: Tensor

    def __init__(self, nfe: int, times_only: bool = False):
        super().__init__()
        if nfe < 1:
            raise ConfigurationError(f"a learned solver needs at least 1 evaluation, got {nfe}")
        self.register_buffer("start", torch.linspace(1, 0, nfe + 1, dtype=torch.float64))
        self.lengths = nn.Parameter(torch.zeros(nfe, dtype=torch.float64))
        self.coefficients = None if times_only else nn.Parameter(torch.zeros(nfe, nfe, dtype=torch.float64))

    def begin(self, times: Tensor) -> None:
        """Take a decreasing grid, [nfe + 1], for the start."""
        self.start.copy_(times)

    def forward(self) -> tuple[Tensor, Tensor]:
        """(times [n + 1], weights b [n, n]), differentiable; see `LearnedSolver`."""
        steps = self.start.diff()  # negative
        after = ((steps / steps.sum()).log() + self.lengths).softmax(0).cumsum(0)[:-1]
        times = torch.cat([self.start[:1], self.start[0] * (1 - after), self.start[-1:]])
        if self.coefficients is None:
            return times, _adams(times)
        return times, (_adams(self.start) + self.PACE * steps * self.coefficients).tril()

    def solver(self, flow: HamiltonianFlow) -> LearnedSolver:
        """The solver of these numbers, of a field of that flow. Raises DivergenceError: they are not finite."""
        times, weights = (part.detach().cpu().clone() for part in self())
        if not bool(times.isfinite().all() and weights.isfinite().all()):
            raise DivergenceError("the learned solver is not finite", fix="a smaller learning rate")
        return LearnedSolver(times, weights, _facts(flow))


def precise_ends(velocity: Field, flow: HamiltonianFlow, starts: Tensor, steps: int = 50) -> Tensor:
    """x_0 for each x_T by `steps` steps of rk4 on the EDM grid, float64 [N, *dims].

    Raises: DivergenceError: it is not finite.
    """
    with torch.no_grad():
        parts = starts.split(PAIRS_AT_A_TIME)
        ends = torch.cat([solve("rk4", velocity, part, time_grid(flow, steps)) for part in parts])
    if not bool(ends.isfinite().all()):
        raise DivergenceError("precise solutions of the field are not finite", fix="look at the model's training curve")
    return ends


def angle_grid(flow: HamiltonianFlow, steps: int, scale: float) -> Tensor:
    """Decreasing times, [steps + 1], evenly spaced in the angle arctan(sigma / scale), from the horizon to 0.

    Args:
        scale: noise level at which data and noise are alike, data units: the spread of the data.

    For the oscillation with alpha = 1 / scale this is `uniform`; each flow has the same noise levels.
    """
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    largest = (flow.sigma(torch.tensor(flow.horizon, dtype=torch.float64)).abs() / scale).atan()
    times[1:-1] = flow.time(scale * (times[1:-1] * largest).tan())
    times[0] = flow.horizon
    return times


def hand_made_grids(
    flow: HamiltonianFlow,
    steps: int,
    lowest: Sequence[float] = (0.002, 0.02, 0.1),
    largest: Sequence[float] = (3.0, 10.0, 80.0),
) -> list[Tensor]:
    """Grids to choose from: uniform, power, and EDM's with several curvatures, smallest and largest noise levels."""
    ends = [(low, high) for low in lowest for high in largest]
    edm = [time_grid(flow, steps, "edm", rho, low, high) for rho in (1.5, 3.0, 7.0) for low, high in ends]
    return [time_grid(flow, steps, "uniform"), time_grid(flow, steps, "power"), *edm]


def run(velocity: Field, x: Tensor, times: Tensor, weights: Tensor) -> Tensor:
    """The state at times[-1] from x, [N, *dims], by the coefficients of a `LearnedSolver`; differentiable in all."""
    slopes: list[Tensor] = []
    state = x
    for i in range(len(weights)):
        slopes.append(velocity(state, times[i]).to(x.dtype))
        state = x + torch.stack(slopes, -1) @ weights[i, : i + 1]
    return state


def distances(found: Tensor, wanted: Tensor) -> Tensor:
    """The root mean square error of each sample, [N]; its gradient is finite at zero."""
    return ((found - wanted).square().flatten(1).mean(1) + 1e-24).sqrt()


def _adams(times: Tensor, order: int = 3) -> Tensor:
    """b of Adams-Bashforth, cumulative, [n, n]; differentiable in the times."""
    n = len(times) - 1
    rows = torch.zeros(n, n, dtype=times.dtype, device=times.device)
    for i in range(n):
        first = max(0, i + 1 - order)
        rows = rows + torch.nn.functional.pad(_adams_row(times[first : i + 2]), (first, n - 1 - i)) * _unit(i, rows)
    return rows.cumsum(0)


def _adams_row(times: Tensor) -> Tensor:
    if not times.requires_grad:
        length = float(times[-1] - times[-2])
        return times.new_tensor(adams_bashforth_weights(times.tolist())[::-1]) * length
    step = times[-1] - times[-2]
    powers = torch.arange(len(times) - 1, dtype=times.dtype, device=times.device)
    nodes = (times[:-1] - times[-2]) / step
    return step * torch.linalg.solve(nodes[None, :] ** powers[:, None], 1 / (powers + 1))


def _unit(i: int, like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)[:, i : i + 1]


def _facts(flow: HamiltonianFlow) -> dict[str, Any]:
    return {"name": flow.name, **flow.options}
