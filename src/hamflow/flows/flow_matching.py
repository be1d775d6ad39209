"""Flow matching: free flight that aims at the noise."""

from typing import Any

import torch
from torch import Tensor

from hamflow.dynamics import drift, zero
from hamflow.flows.base import FLOWS, GaussianFlow


@FLOWS.register("flow_matching")
class FlowMatching(GaussianFlow):
    """F = 0, v_0 = eps - x_0: x_t = (1 - t) x_0 + t eps, the conditional optimal-transport path; T = 1, x_1 = eps exactly.

    Source: arXiv:2410.20470, zero force; Lipman et al. 2022 (arXiv:2210.02747), with time reversed.
    """

    name = "flow_matching"
    horizon = 1.0

    @property
    def options(self) -> dict[str, Any]:
        return {}

    def force(self, x: Tensor, t: float | Tensor) -> Tensor:
        return zero(x, t)

    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        return noise - x0

    def push(self, x0: Tensor, v0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return drift(x0, v0, t)

    def terminal(self, noise: Tensor) -> Tensor:
        return noise

    def time(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + 1 / sigma)  # sigma = t / (1 - t); this form gives 0 at 0 and 1 at infinity

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        one = torch.ones_like(t)
        return 1 - t, t, -one, one
