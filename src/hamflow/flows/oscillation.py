"""Oscillation HGF: data on springs."""

import math
from typing import Any

import torch
from torch import Tensor

from hamflow.dynamics import Harmonic, rotate
from hamflow.flows.base import FLOWS, GaussianFlow
from hamflow.registry import Auto, Positive


@FLOWS.register("oscillation")
class Oscillation(GaussianFlow):
    """F = -alpha^2 x, v_0 ~ N(0, I): a quarter of a period turns the data into velocity, and the velocity into x_T.

    With alpha = 1 / sigma_data the spread of x_t is sigma_data and that of v_t is 1 at every t: no preconditioning is
    needed, and -V is then the inner network of EDM [derived, theory 4.5].
    Args:
        alpha: angular frequency, radians per unit time, > 0; "auto" in the parameters: 1 / sigma_data.
    Source: arXiv:2410.20470, Oscillation HGF.
    """

    name = "oscillation"

    def __init__(self, alpha: Positive | Auto = 1.0):
        self.alpha = float(alpha)
        self.horizon = math.pi / (2 * self.alpha)  # alpha T = pi/2: x_T = v_0 / alpha, the data are gone exactly

    @property
    def options(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        return {**options, "alpha": 1 / sigma_data} if options.get("alpha") == "auto" else options

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
