"""The preconditioning of the variance exploding SDE."""

import torch
from torch import Tensor

from hamflow.parameterisation.base import PARAMETERISATIONS, Network, OfDiffusion

TRAINED = (0.02, 100.0)  # the noise levels of the training; beyond them the label stays


@PARAMETERISATIONS.register("ve")
class VE(OfDiffusion):
    """D(x; sigma) = x + sigma F(x, ln(sigma/2)), sigma = t, with the loss |D - x_0|^2 / sigma^2.

    In terms of the velocity V = (x - D) / sigma this is V = -F, and the loss is the velocity loss without a weight.
    Source: NCSN++ of Song et al. 2021 (arXiv:2011.13456), as in Karras et al. 2022 (arXiv:2206.00364, table 1).
    """

    name = "ve"

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        return -network(x, self.noise_label(x, t), label)

    def noise_label(self, x: Tensor, t: float | Tensor) -> Tensor:
        sigma = torch.as_tensor(t, dtype=x.dtype, device=x.device).clamp(*TRAINED)
        return (sigma / 2).log().expand(x.shape[0])
