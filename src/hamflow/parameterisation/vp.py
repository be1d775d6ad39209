"""The preconditioning of the variance preserving SDE."""

import torch
from torch import Tensor

from hamflow.dynamics import broadcast
from hamflow.flows.vp import time_of
from hamflow.parameterisation.base import PARAMETERISATIONS, Network, OfDiffusion

LAST_LABEL = 999.0  # of the thousand steps of DDPM, which its network counts from 0


@PARAMETERISATIONS.register("vp")
class VP(OfDiffusion):
    """D(x; sigma) = x - sigma F(x / sqrt(sigma^2 + 1), 999 s(sigma)), sigma = t, with the loss |D - x_0|^2 / sigma^2.

    s(sigma) is the time of the SDE at that noise level. In terms of the velocity V = (x - D) / sigma this is V = F, and the
    loss is the velocity loss without a weight.
    Source: DDPM++ of Song et al. 2021 (arXiv:2011.13456), as in Karras et al. 2022 (arXiv:2206.00364, table 1).
    """

    name = "vp"

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        return network(x / torch.sqrt(broadcast(t, x) ** 2 + 1), self.noise_label(x, t), label)

    def noise_label(self, x: Tensor, t: float | Tensor) -> Tensor:
        s = time_of(torch.as_tensor(t, dtype=torch.float64, device=x.device))  # of 999 waves float32 would lose the last digits
        return (LAST_LABEL * s).to(x.dtype).expand(x.shape[0])
