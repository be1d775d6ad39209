"""EDM's preconditioning."""

import torch
from torch import Tensor

from hamflow.dynamics import broadcast
from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.flows.motions import FreeFlight
from hamflow.parameterisation.base import PARAMETERISATIONS, Network, Parameterisation


@PARAMETERISATIONS.register("edm")
class EDM(Parameterisation):
    """D(x; sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4), sigma = t, of Karras et al. 2022 (arXiv:2206.00364, table 1).

    In terms of the velocity V = (x - D) / sigma:
        c_skip = s_d^2 / (sigma^2 + s_d^2)         =>  (1 - c_skip) / sigma = sigma / (sigma^2 + s_d^2)
        c_out = sigma s_d / sqrt(sigma^2 + s_d^2)  =>  c_out / sigma = s_d / sqrt(sigma^2 + s_d^2)
    which is regular at sigma = 0, and the loss weight 1/c_out^2 on |D - x_0|^2 = sigma^2 |V - v_0|^2 becomes
    (sigma^2 + s_d^2) / s_d^2 on the velocity loss.

    Under heavy-tailed noise sigma is not t but t w with the factor w of `LinearFlow.widening`, a function of x_t and t. So
    the network's input is bounded and the loss is finite although the variance of v_0 may not be: then V = (x - D) / t has a
    factor w, and the weight 1/c_out^2 a factor 1/w^2, on the above.
    """

    def __init__(self, flow: HamiltonianFlow, sigma_data: float):
        if not isinstance(flow, FreeFlight):
            raise ConfigurationError(
                f"parameterisation 'edm' belongs to flows 'diffusion' and 'pfgm', not to '{flow.name}'",
                fix="use 'velocity': with alpha = 1/sigma_data the oscillation flow needs no preconditioning at all",
            )
        super().__init__(flow, sigma_data)
        self.flow: FreeFlight = flow

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        width = self.flow.widening(x, t, self.sigma_data)
        sigma = broadcast(t * width, x)
        spread = torch.sqrt(sigma**2 + self.sigma_data**2)
        inner = network(x / spread, self.noise_label(x, t * width), label)
        return broadcast(width, x) * (sigma / spread**2 * x - self.sigma_data / spread * inner)

    def weight(self, x: Tensor, t: Tensor) -> Tensor:
        width = self.flow.widening(x, t, self.sigma_data)
        return ((t * width) ** 2 + self.sigma_data**2) / self.sigma_data**2 / width**2
