"""Diffusion: free flight with an independent normal velocity."""

from typing import Any

from hamflow.flows.base import FLOWS, GaussianFlow
from hamflow.flows.motions import FreeFlight
from hamflow.registry import Positive


@FLOWS.register("diffusion")
class Diffusion(FreeFlight, GaussianFlow):
    """F = 0, v_0 ~ N(0, I): x_t = x_0 + t v_0, so that dx/dt = V is EDM's probability-flow ODE with sigma(t) = t.

    There is no finite time at which the data are gone; at T = horizon x_T is taken as N(0, T^2 I), so T must be large
    against the data (80 for images in [-1, 1]: Karras et al. 2022).
    Args:
        horizon: T, where samples start. latest: of the times of a training; None: T.
    Source: arXiv:2410.20470, zero force.
    """

    name = "diffusion"

    def __init__(self, horizon: Positive = 80.0, latest: Positive | None = None):
        super().__init__(horizon)
        self._latest = latest

    @property
    def latest(self) -> float:
        return self.horizon if self._latest is None else self._latest

    @property
    def options(self) -> dict[str, Any]:
        return {"horizon": self.horizon, "latest": self._latest}
