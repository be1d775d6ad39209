"""Diffusion: free flight with an independent normal velocity."""

from typing import Any

import torch
from torch import Tensor

from hamflow.dynamics import drift, zero
from hamflow.flows.base import FLOWS, GaussianFlow
from hamflow.registry import Positive


@FLOWS.register("diffusion")
class Diffusion(GaussianFlow):
    """F = 0, v_0 ~ N(0, I): x_t = x_0 + t v_0, so that dx/dt = V is EDM's probability-flow ODE with sigma(t) = t.

    There is no finite time at which the data are gone; at T = horizon x_T is taken as N(0, T^2 I), so T must be large
    against the data (80 for images in [-1, 1]: Karras et al. 2022).
    Args:
        horizon: T, where samples start. latest: of the times of a training; None: T.
    Source: arXiv:2410.20470, zero force.
    """

    name = "diffusion"

    def __init__(self, horizon: Positive = 80.0, latest: Positive | None = None):
        self.horizon, self._latest = float(horizon), latest

    @property
    def latest(self) -> float:
        return self.horizon if self._latest is None else self._latest

    @property
    def options(self) -> dict[str, Any]:
        return {"horizon": self.horizon, "latest": self._latest}

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
