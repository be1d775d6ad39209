"""Symplectic integrators as coefficient lists, for any force and batch shape, differentiable."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hamflow.dynamics.forces import Force
from hamflow.dynamics.motion import broadcast
from hamflow.errors import ConfigurationError, nearest


class Scheme(NamedTuple):
    """One step of length h: kicks v += k h F(x, t) and drifts x += d h v by turns, beginning with `kicks[0]` (may be 0)."""

    kicks: tuple[float, ...]
    drifts: tuple[float, ...]  # one fewer than kicks


def compose(weights: Sequence[float]) -> Scheme:
    """Leapfrog steps kick-drift-kick of lengths weights[i] h, one after the other, neighbouring kicks merged.

    Any symmetric list that sums to 1 gives a symmetric, symplectic scheme of even order.
    """
    halves = [0.0, *weights, 0.0]
    return Scheme(tuple((a + b) / 2 for a, b in itertools.pairwise(halves)), tuple(weights))


_l = 0.1931833275037836  # McLachlan 1995: the least error of second order that two kicks a step can have
_w = 1 / (2 - 2 ** (1 / 3))  # Yoshida 1990, eq. 4.9: 2 w^3 + (1 - 2 w)^3 = 0 cancels the error term of third order
_b = (0.0829844064174052, 0.396309801498368, -0.0390563049223486)  # Blanes and Moan 2002, SRKN_6^b: of fourth order, with the
_a = (0.245298957184271, 0.604872665711080)  # error of fifth order minimised over what six kicks a step leave free

SCHEMES: dict[str, Scheme] = {
    "leapfrog": compose([1.0]),  # kick 1/2, drift 1, kick 1/2 (velocity Verlet)
    "leapfrog_dkd": Scheme((0.0, 1.0, 0.0), (0.5, 0.5)),  # drift 1/2, kick 1, drift 1/2 (position Verlet)
    "mclachlan": Scheme((0.0, 0.5, 0.5, 0.0), (_l, 1 - 2 * _l, _l)),
    "yoshida4": compose([_w, 1 - 2 * _w, _w]),
    "blanes_moan4": Scheme((*_b, 1 - 2 * sum(_b), *_b[::-1]), (*_a, 0.5 - sum(_a), 0.5 - sum(_a), *_a[::-1])),
}


def simulate(
    force: Force,
    x: Tensor,
    v: Tensor,
    duration: float | Tensor,
    steps: int,
    scheme: str | Scheme = "leapfrog",
    start: float | Tensor = 0.0,
) -> tuple[Tensor, Tensor]:
    """Integrate dx/dt = v, dv/dt = F(x, t) from `start` for `duration` with equal steps.

    Volume is preserved exactly for every force, gradient or not; without time dependence so is reversal of time.
    Backward: a negative duration.

    Args:
        force: F(x, t) -> [N, *dims]; t as `start + ...`, scalar or [N]. One with a method `confine(x, v)` has walls.
        x, v: initial positions and velocities, [N, *dims].
        duration, start: time units, scalar or [N] (each sample its own).
        steps: number of steps, >= 1.
        scheme: a name of SCHEMES or a Scheme.
    Returns:
        (x_t, v_t), shaped as given.
    Raises:
        ConfigurationError: steps < 1, an unknown scheme, or a force whose value is not shaped like x.
    Source:
        arXiv:2410.20470 uses leapfrog; schemes after Yoshida 1990.
    """
    if steps < 1:
        raise ConfigurationError(f"an integration needs steps >= 1, got {steps}")
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise ConfigurationError(f"unknown scheme '{scheme}'", fix=nearest(scheme, SCHEMES))
        scheme = SCHEMES[scheme]
    confine = getattr(force, "confine", None)
    h = duration / steps
    step, t, pull = broadcast(h, x), start, None
    for _ in range(steps):
        for kick, move in zip(scheme.kicks, (*scheme.drifts, 0.0), strict=True):
            if kick:
                pull = _evaluate(force, x, t) if pull is None else pull
                v = v + kick * step * pull
            if move:
                x, t, pull = x + move * step * v, t + move * h, None
                if confine:
                    x, v = confine(x, v)
    return x, v


def _evaluate(force: Force, x: Tensor, t: float | Tensor) -> Tensor:
    value = force(x, t)
    if value.shape != x.shape:
        raise ConfigurationError(
            f"the force returned shape {tuple(value.shape)} for positions of shape {tuple(x.shape)}",
            fix="a force maps [N, *dims] to [N, *dims]",
        )
    return value
