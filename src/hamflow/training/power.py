"""Averages of the weights whose length is chosen after the training (Karras et al. 2024, arXiv:2312.02696, section 3).

Theory 10 of docs/theory.md derives what is used here.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def exponent(width: float) -> float:
    """gamma of the profile (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t] whose standard deviation is `width` t.

    width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), a cubic equation in gamma with one root above -1.
    Args:
        width: in (0, 1/sqrt(12)); that end is gamma = 0, the plain mean.
    Source: arXiv:2312.02696, equation 126.
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"the relative width of an average lies in (0, {12**-0.5:.3f}), got {width}")
    t = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
    return float(max(roots.real))


def width_of(gamma: float) -> float:
    """The relative standard deviation of the profile of exponent gamma >= 0; the inverse of `exponent`."""
    return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))


class PowerAverage:
    """sum_j w_j theta_j over the steps j <= k with w_j = (j/k)^(gamma+1) - ((j-1)/k)^(gamma+1).

    Args:
        module: what is trained, at its start, which has no part in the average.
        width: relative standard deviation of the profile.
    Source: arXiv:2312.02696, equation 4; theory 10.1.
    """

    def __init__(self, module: nn.Module, width: float):
        self.width, self.gamma = width, exponent(width)
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """After step `step` = 1, 2, ...: keep (1 - 1/k)^(gamma + 1) of what was there, none at the first."""
        new = 1 - (1 - 1 / step) ** (self.gamma + 1)
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), new)
        for kept, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(buffer)


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Integral of the product of two profiles, each given as (its end t, gamma).

    With t_a <= t_b it is (gamma_a + 1)(gamma_b + 1) / (gamma_a + gamma_b + 1) (t_a / t_b)^gamma_b / t_b.
    Source: theory 10.2.
    """
    (t_a, gamma_a), (t_b, gamma_b) = sorted((a, b), key=lambda profile: profile[0])
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * (t_a / t_b) ** gamma_b / t_b


def combination(kept: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[np.ndarray, float]:
    """The factors x of averages that were kept whose sum is nearest to one that was not.

    Least squares of the profiles, |sum_i x_i p_i - p|^2, under sum_i x_i = 1: weights that never moved stay as they are.

    Args:
        kept, wanted: profiles, each (its end t, gamma); the unit of t is the same in all.
    Returns:
        (x [n], e): e is the distance of the profiles relative to |p|, from 0 for one that was kept. On a trajectory theta the
        error is at most e |p| times the root of the integral of |theta - c|^2, for any constant c (Cauchy and Schwarz).
    Source: theory 10.2.
    """
    n = len(kept)
    matrix, right = np.ones((n + 1, n + 1)), np.ones(n + 1)
    matrix[:n, :n] = [[overlap(a, b) for b in kept] for a in kept]
    matrix[n, n] = 0
    right[:n] = [overlap(a, wanted) for a in kept]
    x = np.linalg.lstsq(matrix, right, rcond=1e-13)[0][:n]
    own = overlap(wanted, wanted)
    square = own - 2 * x @ right[:n] + x @ matrix[:n, :n] @ x
    return x, math.sqrt(max(0.0, float(square)) / own)


def combined(tensors: Sequence[dict[str, Tensor]], factors: np.ndarray) -> dict[str, Tensor]:
    """The sum of the same tensors of several averages, each by its factor; what is equal in all stays as it is."""
    found = {}
    for name, last in tensors[-1].items():
        same = [each[name] for each in tensors]
        if not last.is_floating_point() or all(torch.equal(one, last) for one in same):
            found[name] = last
        else:
            found[name] = sum(float(x) * one.double() for x, one in zip(factors, same, strict=True)).to(last.dtype)  # type: ignore[union-attr]
    return found
