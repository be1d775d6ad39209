"""EDM's preconditioning."""

import torch
from torch import Tensor

from hamflow.dynamics import broadcast
from hamflow.parameterisation.base import PARAMETERISATIONS, Network, OfDiffusion


@PARAMETERISATIONS.register("edm")
class EDM(OfDiffusion):
    """D(x; sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4), sigma = t, of Karras et al. 2022 (arXiv:2206.00364, table 1).

    In terms of the velocity V = (x - D) / sigma:
        c_skip = s_d^2 / (sigma^2 + s_d^2)         =>  (1 - c_skip) / sigma = sigma / (sigma^2 + s_d^2)
        c_out = sigma s_d / sqrt(sigma^2 + s_d^2)  =>  c_out / sigma = s_d / sqrt(sigma^2 + s_d^2)
    which is regular at sigma = 0, and the loss weight 1/c_out^2 on |D - x_0|^2 = sigma^2 |V - v_0|^2 becomes
    (sigma^2 + s_d^2) / s_d^2 on the velocity loss.
    """

    name = "edm"

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        sigma = broadcast(t, x)
        spread = torch.sqrt(sigma**2 + self.sigma_data**2)
        inner = network(x / spread, self.noise_label(x, t), label)
        return sigma / spread**2 * x - self.sigma_data / spread * inner

    def weight(self, t: Tensor) -> Tensor:
        return (t**2 + self.sigma_data**2) / self.sigma_data**2
