"""Adaptive steps, chosen for each sample alone: what is drawn does not depend on what else is in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hamflow.errors import DivergenceError
from hamflow.sampling.solvers import DOPRI5_TOLERANCE, register

if TYPE_CHECKING:
    from torch import Tensor

    from hamflow.sampling.solvers import Velocity

# Dormand and Prince 1980: times of the stages, their weights, and the weights of the error, fifth order less fourth
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
ERROR = tuple(float(e) for e in np.append(STAGES[-1], 0.0) - np.array(FOURTH))
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0  # of the next step's length (Hairer, Norsett, Wanner 1993, section II.4)
SMALLEST = 1e-12  # a step, in units of the whole way: below it the field is no field


@register(slope=0)
def dopri5_each(velocity: Velocity, x: Tensor, times: Tensor) -> Tensor:
    """Adaptive Dormand-Prince 5(4) with a step length for each sample, so that a sample does not depend on its batch.

    The velocity is called with times [N]. All samples are evaluated until the last arrives: the number of evaluations is that
    of the slowest. Raises DivergenceError: a step that cannot be short enough.
    Source: Hairer, Norsett, Wanner 1993, sections II.4 and II.5; one length a sample as in torchode (arXiv:2210.12375).
    """
    import torch

    start, end = times[0], times[-1]
    way = end - start

    def along(size: Tensor) -> Tensor:
        """A number for each sample, to multiply its state."""
        return size.reshape(-1, *(1,) * (x.ndim - 1))

    def size_of(change: Tensor, *states: Tensor) -> Tensor:
        """Root mean square of a change of each sample in units of the tolerance, [N]."""
        scale = DOPRI5_TOLERANCE * (1 + torch.stack([state.abs() for state in states]).amax(0))
        return (change / scale).square().flatten(1).mean(1).sqrt()

    done = torch.zeros(len(x), dtype=x.dtype, device=x.device)  # the share of the way behind each sample
    if not len(x):
        return x
    slope = velocity(x, start + way * done)
    # A first length by which an Euler step changes the state by a hundredth of its size: the error control mends the rest.
    step = (0.01 * size_of(x, x) / (size_of(slope, x) * way.abs()).clamp(min=1e-12)).nan_to_num(0.1).clamp(1e-6, 0.1)
    while bool((done < 1).any()):
        step = torch.minimum(step, 1 - done)
        stages = [slope]
        for node, weights in zip(NODES[1:], STAGES, strict=True):
            ahead = sum(w * k for w, k in zip(weights, stages, strict=True))
            reached = x + along(way * step) * ahead
            stages.append(velocity(reached, start + way * (done + node * step)))
        error = size_of(along(way * step) * sum(e * k for e, k in zip(ERROR, stages, strict=True)), x, reached)
        good = error <= 1  # not, where it is no number
        last = step >= 1 - done
        done = torch.where(good, torch.where(last, torch.ones_like(done), done + step), done)
        x, slope = (torch.where(along(good), new, old) for new, old in ((reached, x), (stages[-1], slope)))
        factor = (SAFETY * error.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW)
        step = step * torch.where(good, factor, torch.where(error.isfinite(), factor.clamp(max=1.0), SHRINK))
        if not bool((step[done < 1] >= SMALLEST).all()):
            raise DivergenceError(
                "dopri5_each finds no step that is short enough",
                why="the velocity is not finite, or not smooth, on the way of a sample",
                fix="look at the model's training curve, or use a sampler of fixed steps",
            )
    return x
