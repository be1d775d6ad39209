"""Solvers that know the flow: multistep methods in the denoiser or the noise, whatever the flow's own coordinate.

For a linear flow x = a x_0 + b n they integrate y = x / a in sigma = b / a, or in lambda = -ln sigma (theory 6.4):
    dy/dlambda = D - y   =>   x_next = (b_next / b) x + a_next int_0^h e^(u - h) D du,   h = lambda_next - lambda.
Where a = 0, in pure noise, the first step is still finite: x_next = (b_next / b) x + a_next D.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamflow.sampling.solvers import adams_bashforth_weights, register

if TYPE_CHECKING:
    from torch import Tensor

    from hamflow.flows import LinearFlow
    from hamflow.sampling.solvers import Velocity

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


class _Level(NamedTuple):
    """Where a step begins or ends: a and b of the flow, and lambda = ln(a / b), infinite in pure noise and at the data."""

    a: float
    b: float
    log: float

    @property
    def sigma(self) -> float:
        return math.exp(-self.log)


def exponential_weights(h: float, nodes: list[float]) -> list[float]:
    """Weights w of D at the nodes with sum_j w_j D(s_j) = int_0^h e^(u - h) D(u) du / (1 - e^-h).

    They are exact for every polynomial D that the nodes determine. With two nodes the slope has the weight 1/2 instead of its
    exact one, as in DPM-Solver++(2M) and UniPC; the difference is of the order of the error.

    Args:
        h: length of the step in lambda, > 0. nodes: values of u, that of the step's beginning first, u = 0.
    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2; Zhao et al. 2023 (arXiv:2302.04867), B(h) = e^h - 1.
    """
    if len(nodes) == 1:
        return [1.0]
    s = np.array(nodes) / h  # in units of the step, so that the powers keep one scale
    if len(nodes) == 2:
        slope = 0.5 / float(s[1])
        return [1 - slope, slope]
    powers = np.arange(len(nodes))
    u = (_NODES + 1) / 2
    moments = (u[None, :] ** powers[:, None] * np.exp(h * (u - 1))) @ _WEIGHTS * h / 2 / -math.expm1(-h)
    return np.linalg.solve(s[None, :] ** powers[:, None], moments).tolist()


def _exponential(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow, order: int, corrected: bool) -> Tensor:
    """Exponential Adams-Bashforth in the denoiser; if `corrected`, each step is repeated with the denoiser at its own end.

    The order grows from 1; before a last step to sigma = 0, where lambda is infinite, it falls to 1 again.
    """
    levels, times = _levels(flow, times), times.to(x.device, non_blocking=True)
    known: list[tuple[float, Tensor]] = []  # (lambda, D), the latest first; those at lambda = -infinity have served
    begun, used = x, 0
    for i, (level, after) in enumerate(itertools.pairwise(levels)):
        denoised = flow.denoiser_from_velocity(x, velocity(x, times[i]), times[i])
        if corrected and i and math.isfinite(levels[i - 1].log):
            x = _step(begun, levels[i - 1], level, [known[0], (level.log, denoised), *known[1:]][: used + 1])
        known = [(level.log, denoised), *[pair for pair in known if math.isfinite(pair[0])]]
        left = len(levels) - 1 - i if math.isinf(levels[-1].log) else order
        used = min(order, len(known), left)
        begun, x = x, _step(x, level, after, known[:used])
    return x


def _step(x: Tensor, level: _Level, after: _Level, known: list[tuple[float, Tensor]]) -> Tensor:
    h = after.log - level.log
    weights = exponential_weights(h, [log - level.log for log, _ in known]) if len(known) > 1 else [1.0]
    mean = sum(weight * denoised for weight, (_, denoised) in zip(weights, known, strict=True))
    return after.b / level.b * x - after.a * math.expm1(-h) * mean


def _levels(flow: LinearFlow, times: Tensor) -> list[_Level]:
    a, b, _, _ = flow.coefficients(times)
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    if abs(pairs[0][0]) < 1e-12 * abs(pairs[0][1]):  # the cosine of a rounded pi/2
        pairs[0] = (0.0, pairs[0][1])
    logs = [-math.inf if a == 0 else math.inf if b == 0 else math.log(a / b) for a, b in pairs]
    return [_Level(a, b, log) for (a, b), log in zip(pairs, logs, strict=True)]


@register(slope=1, order=1, knows_flow=True)
def ddim(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """First order, one evaluation a step: exact while the denoiser is constant (Song et al. 2020, arXiv:2010.02502)."""
    return _exponential(velocity, x, times, flow, 1, False)


@register(slope=1, order=2, knows_flow=True)
def dpmpp_2m(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """DPM-Solver++(2M), second order, one evaluation a step (Lu et al. 2022, arXiv:2211.01095, algorithm 2)."""
    return _exponential(velocity, x, times, flow, 2, False)


@register(slope=1, order=3, knows_flow=True)
def dpmpp_3m(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """DPM-Solver++ with three denoisers, third order where the denoiser begins gently, one evaluation a step.

    The quadratic through them is integrated exactly: this is UniP-3 of arXiv:2302.04867. Some published code gives the second
    difference half of this weight and is then of order 2.
    """
    return _exponential(velocity, x, times, flow, 3, False)


@register(slope=1, order=3, knows_flow=True)
def unipc(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """UniPC of order 2: the predictor is `dpmpp_2m`, its evaluation serves the corrector too; one evaluation a step.

    Third order, but for the last step, which is not corrected. A first step from pure noise, of infinite length in lambda, is
    not corrected either.
    Source: Zhao et al. 2023 (arXiv:2302.04867), the corrector UniC-2 with B(h) = e^h - 1.
    """
    return _exponential(velocity, x, times, flow, 2, True)


@register(slope=1, order=4, knows_flow=True)
def unipc_3(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """UniPC of order 3: the predictor is `dpmpp_3m`; see `unipc`."""
    return _exponential(velocity, x, times, flow, 3, True)


def _in_sigma(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow, order: int) -> Tensor:
    """Adams-Bashforth for y = x / a in sigma: dy/dsigma = E[n | x]; a first step from sigma = infinity is that of `ddim`."""
    levels, times = _levels(flow, times), times.to(x.device, non_blocking=True)
    known: list[tuple[float, Tensor]] = []  # (sigma, E[n]), the latest first
    for t, level, after in zip(times[:-1], levels[:-1], levels[1:], strict=True):
        slope = velocity(x, t)
        if math.isinf(level.sigma):
            x = _step(x, level, after, [(level.log, flow.denoiser_from_velocity(x, slope, t))])
            continue
        known = [(level.sigma, flow.noise_from_velocity(x, slope, t)), *known[: order - 1]]
        weights = adams_bashforth_weights([*[sigma for sigma, _ in reversed(known)], after.sigma])
        mean = sum(weight * noise for weight, (_, noise) in zip(weights, known, strict=True))
        x = after.a / level.a * x + after.a * (after.sigma - level.sigma) * mean
    return x


@register(slope=1, order=2, knows_flow=True)  # its Euler start has an error h^2
def ipndm(velocity: Velocity, x: Tensor, times: Tensor, flow: LinearFlow) -> Tensor:
    """`multistep` of order 3 in sigma, one evaluation a step; for flow `diffusion` the two are one (arXiv:2204.13902)."""
    return _in_sigma(velocity, x, times, flow, 3)
