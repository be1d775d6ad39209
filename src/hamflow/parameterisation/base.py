"""The contract between a flow and a network."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.registry import Registry

PARAMETERISATIONS: Registry = Registry("parameterisation", "hamflow.parameterisation", given=("flow", "sigma_data"))

# The noise levels that a network sees; beyond them the optimal velocity does not change to visible precision
# (Karras et al. 2022, table 1: sigma_min and sigma_max of the sampler).
SIGMA_RANGE = (0.002, 80.0)


Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (input, noise label, class label) -> output


class Parameterisation(ABC):
    """Turns a network into V(x, t), and weights the velocity loss.

    Args:
        flow: the flow whose velocity is learned.
        sigma_data: root mean square of the data about their mean, data units.
    """

    def __init__(self, flow: HamiltonianFlow, sigma_data: float):
        self.flow, self.sigma_data = flow, sigma_data

    @abstractmethod
    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """V(x_t, t), [N, *dims] like x; t scalar or [N]; label int64 [N] for a class-conditional network."""

    def weight(self, x: Tensor, t: Tensor) -> Tensor:
        """Weight of the velocity loss of x_t at times t, [N]."""
        return torch.ones_like(t)

    def noise_label(self, x: Tensor, t: float | Tensor) -> Tensor:
        """The time label of a network: ln(sigma) / 4 of the noise-to-signal ratio (Karras et al. 2022), [N]."""
        sigma = self.flow.sigma(torch.as_tensor(t, dtype=x.dtype, device=x.device)).clamp(*SIGMA_RANGE)
        return (sigma.log() / 4).expand(x.shape[0])


class OfDiffusion(Parameterisation):
    """A preconditioning of the denoiser D(x; sigma), sigma = t. Raises ConfigurationError for a flow other than diffusion."""

    name: ClassVar[str]

    def __init__(self, flow: HamiltonianFlow, sigma_data: float):
        if flow.name != "diffusion":
            raise ConfigurationError(
                f"parameterisation '{self.name}' belongs to flow 'diffusion', not to '{flow.name}'",
                fix="use 'velocity': with alpha = 1/sigma_data the oscillation flow needs no preconditioning at all",
            )
        super().__init__(flow, sigma_data)
