"""Solvers of dx/dt = V(x, t): one signature, state in float64, an exact number of evaluations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamflow.errors import ConfigurationError, nearest

if TYPE_CHECKING:  # the parameters, which name samplers and their budgets, are checked without torch
    from torch import Tensor

    from hamflow.flows import HamiltonianFlow

    Velocity = Callable[[Tensor, Tensor], Tensor]
    Integrate = Callable[..., Tensor]


class Solver(NamedTuple):
    """A sampler: its function, its cost and its order.

    Fields:
        integrate: (velocity, x, times) -> x at the last of the times; one that knows the flow has it as a fourth argument.
        slope, offset: `steps` steps cost slope * steps + offset evaluations; slope 0 for one that chooses its own steps.
        order: of its global error in the step, None for one that chooses its own steps.
        knows_flow: whether it needs the flow, which must be linear: its denoiser and its noise level are integrated.
    """

    integrate: Integrate
    slope: int
    offset: int
    order: int | None
    knows_flow: bool = False


SOLVERS: dict[str, Solver] = {}


def register(
    slope: int, offset: int = 0, order: int | None = None, knows_flow: bool = False
) -> Callable[[Integrate], Integrate]:
    """Decorator: enter a function as the sampler of its name; see `Solver`."""

    def enter(integrate: Integrate) -> Integrate:
        SOLVERS[integrate.__name__] = Solver(integrate, slope, offset, order, knows_flow)
        return integrate

    return enter


TELEPORTED = "teleported_"  # before the name of any sampler: it starts lower, see `hamflow.sampling.teleportation`


def get(name: str, where: str = "") -> Solver:
    """The sampler of that name. Raises ConfigurationError, naming the nearest; where: the key at which the name stands."""
    found = SOLVERS.get(name.removeprefix(TELEPORTED))
    if found is None:
        at = f"`{where}`: " if where else ""
        raise ConfigurationError(f"{at}unknown sampler '{name}'", fix=nearest(name.removeprefix(TELEPORTED), SOLVERS))
    return found


MULTISTEP_ORDER = 3
DOPRI5_TOLERANCE = 1e-5  # relative and absolute, data units


def check_flow(name: str, flow: HamiltonianFlow | type[HamiltonianFlow] | None) -> None:
    """Raise ConfigurationError for a sampler that needs a linear flow, or one with normal noise, and another one or none."""
    if name.startswith(TELEPORTED) and not hasattr(flow, "score_from_velocity"):
        raise ConfigurationError(
            f"sampler '{name}' starts as if the data were normal, but "
            + (f"flow '{flow.name}' has no normal noise" if flow is not None else "no flow is given"),
            why="a normal law does not stay normal in it",
            fix=f"sampler '{name.removeprefix(TELEPORTED)}', or `samplers` of its own for this method",
        )
    linear = hasattr(flow, "denoiser_from_velocity")
    if get(name).knows_flow and not linear:
        given = f"flow '{flow.name}' has none" if flow is not None else "no flow is given"
        raise ConfigurationError(
            f"sampler '{name}' integrates the flow's denoiser, but {given}",
            why="it needs E[x_0 | x_t], which the velocity of a linear flow determines",
            fix=f"one of {', '.join(other for other, solver in SOLVERS.items() if not solver.knows_flow)}",
        )


def solve(name: str, velocity: Velocity, x: Tensor, times: Tensor, flow: HamiltonianFlow | None = None) -> Tensor:
    """Integrate dx/dt = V(x, t) from times[0] to times[-1].

    Args:
        name: a sampler of `hamflow.sampling.names()`.
        velocity: V(x, t) -> shaped like x; called with float64 x and scalar float64 t, by `dopri5_each` with t [N].
        x: state at times[0], [N, *dims].
        times: strictly monotone, [K + 1]; decreasing to generate. The adaptive dopri5 uses its two ends only.
        flow: whose velocity this is; only the samplers that integrate its denoiser or noise use it.
    Returns:
        The state at times[-1], float64, [N, *dims].
    Raises:
        ConfigurationError: an unknown sampler, times that are not strictly monotone, or no linear flow where one is needed.
    """
    import torch

    solver = get(name)
    times = torch.as_tensor(times, dtype=torch.float64)
    steps = times.diff()
    if len(times) < 2 or not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ConfigurationError(f"a time grid must be strictly monotone and have at least 2 points, got {times.tolist()}")
    check_flow(name, flow)
    # A solver of fixed steps reads its times on the host, so that no step waits for the device; the adaptive one chooses them
    # from the state, and has them there.
    times = times.cpu() if solver.slope else times.to(x.device)

    def there(x: Tensor, t: Tensor) -> Tensor:
        return velocity(x, t.to(x.device, non_blocking=True))

    # float32 rounding of the state would hide the truncation error of the later steps
    return solver.integrate(there, x.double(), times, *([flow] if solver.knows_flow else []))


class CountedVelocity:
    """A velocity field that counts its evaluations in `count`; what it is given beside x and t, it passes on."""

    def __init__(self, velocity: Callable[..., Tensor]):
        self.velocity, self.count = velocity, 0

    def __call__(self, x: Tensor, t: float | Tensor, *given: Tensor | None) -> Tensor:
        self.count += 1
        return self.velocity(x, t, *given)


def count_evaluations(velocity: Callable[..., Tensor]) -> CountedVelocity:
    """Wrap a velocity field so that its evaluations are counted."""
    return CountedVelocity(velocity)


@register(slope=1, order=1)
def euler(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """First order, one evaluation a step."""
    for t, t_next in _intervals(times):
        x = x + (t_next - t) * velocity(x, t)
    return x


@register(slope=2, offset=-1, order=2)
def heun(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Second order (trapezoidal), two evaluations a step but one in the last: Karras et al. 2022, algorithm 1 without churn."""
    intervals = _intervals(times)
    for t, t_next in intervals[:-1]:
        h, slope = t_next - t, velocity(x, t)
        x = x + h / 2 * (slope + velocity(x + h * slope, t_next))
    return euler(velocity, x, times[-2:])


@register(slope=2, order=2)
def midpoint(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Second order, two evaluations a step."""
    for t, t_next in _intervals(times):
        h = t_next - t
        x = x + h * velocity(x + h / 2 * velocity(x, t), t + h / 2)
    return x


@register(slope=4, order=4)
def rk4(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """The classical fourth-order Runge-Kutta method, four evaluations a step."""
    for t, t_next in _intervals(times):
        h = t_next - t
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + h / 2 * k2, t + h / 2)
        k4 = velocity(x + h * k3, t_next)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@register(slope=1, order=2)  # its Euler start has an error h^2
def multistep(velocity: Velocity, x: Tensor, times: Tensor, order: int = MULTISTEP_ORDER) -> Tensor:
    """Adams-Bashforth on a non-uniform grid, one evaluation a step; the order grows from 1 as slopes become known.

    The Euler start leaves an error h^2 where the field is not small at times[0]; in pure noise it is.
    Source: the variable-step form of iPNDM (Zhang, Chen 2022, arXiv:2204.13902), for velocities.
    """
    slopes: list[Tensor] = []
    for i, (t, t_next) in enumerate(_intervals(times)):
        slopes = [velocity(x, t), *slopes[: order - 1]]
        weights = adams_bashforth_weights(times[i + 1 - len(slopes) : i + 2].tolist())
        x = x + (t_next - t) * sum(w * slope for w, slope in zip(weights, slopes, strict=True))
    return x


@register(slope=1, order=2)
def multistep_2(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """`multistep` of order 2."""
    return multistep(velocity, x, times, 2)


@register(slope=1, order=2)
def multistep_4(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """`multistep` of order 4."""
    return multistep(velocity, x, times, 4)


def adams_bashforth_weights(times: list[float]) -> list[float]:
    """Weights of the slopes at times[-2], times[-3], ..., times[0] for the step times[-2] -> times[-1], its length taken as 1.

    They integrate every polynomial of degree len(times) - 2 exactly [derived: the Lagrange interpolant's integral].
    """
    start, length = times[-2], times[-1] - times[-2]
    nodes = (np.array(times[-2::-1]) - start) / length
    powers = np.arange(len(nodes))
    return np.linalg.solve(nodes[None, :] ** powers[:, None], 1 / (powers + 1)).tolist()


@register(slope=0)
def dopri5(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Adaptive Dormand-Prince 5(4) through torchdiffeq; the worst sample of the batch chooses the steps."""
    from torchdiffeq import odeint

    def worst(error: Tensor) -> Tensor:  # so that no sample is integrated more coarsely than the tolerance says
        return error.reshape(x.shape).flatten(1).square().mean(1).sqrt().max()

    ends = times[[0, -1]]
    return odeint(
        lambda t, state: velocity(state, t),
        x,
        ends,
        rtol=DOPRI5_TOLERANCE,
        atol=DOPRI5_TOLERANCE,
        method="dopri5",
        options={"norm": worst},
    )[-1]


@register(slope=0)
def dopri5_log(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """dopri5 in the coordinate ln t, dx/d(ln t) = t V, down to the last time before 0, and an Euler step from there.

    Source: PFGM's sampler, RK45 in ln z (Xu et al. 2022, arXiv:2209.11178), for any velocity.
    """
    x = dopri5(lambda x, s: s.exp() * velocity(x, s.exp()), x, times[:-1].log())
    return euler(velocity, x, times[-2:])


def _intervals(times: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(itertools.pairwise(times))
