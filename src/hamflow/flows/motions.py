"""The two motions that several linear flows share: free flight and springs. They differ in the law of their velocities."""

import math

import torch
from torch import Tensor

from hamflow.dynamics import Harmonic, drift, rotate, zero
from hamflow.flows.base import LinearFlow


class FreeFlight(LinearFlow):
    """F = 0, a velocity that does not look at the data: x_t = x_0 + t v_0, v_t = v_0, sigma(t) = t; x_T is taken as T v_0."""

    def __init__(self, horizon: float):
        self.horizon = float(horizon)

    def force(self, x: Tensor, t: float | Tensor) -> Tensor:
        return zero(x, t)

    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        return noise

    def push(self, x0: Tensor, v0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return drift(x0, v0, t)

    def terminal(self, noise: Tensor) -> Tensor:
        return self.horizon * noise

    def time(self, sigma: Tensor) -> Tensor:
        return sigma

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        one, nought = torch.ones_like(t), torch.zeros_like(t)
        return one, t, nought, one


class Springs(LinearFlow):
    """F = -alpha^2 x and a velocity that does not look at the data: a quarter of a period turns it into x_T = v_0 / alpha."""

    def __init__(self, alpha: float):
        self.alpha = float(alpha)
        self.horizon = math.pi / (2 * self.alpha)  # alpha T = pi/2: x_T = v_0 / alpha, the data are gone exactly

    def force(self, x: Tensor, t: float | Tensor) -> Tensor:
        return Harmonic(self.alpha)(x, t)

    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        return noise

    def push(self, x0: Tensor, v0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return rotate(x0, v0, self.alpha, t)

    def terminal(self, noise: Tensor) -> Tensor:
        return noise / self.alpha

    def time(self, sigma: Tensor) -> Tensor:
        return torch.arctan(self.alpha * sigma) / self.alpha  # sigma = tan(alpha t) / alpha

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cos, sin = torch.cos(self.alpha * t), torch.sin(self.alpha * t)
        return cos, sin / self.alpha, -self.alpha * sin, cos


def alpha_of(options: dict, sigma_data: float) -> dict:
    """Options in which alpha is a number: "auto" is 1 / sigma_data, so that x_t and v_t keep their scale."""
    return {**options, "alpha": 1 / sigma_data} if options.get("alpha") == "auto" else options
