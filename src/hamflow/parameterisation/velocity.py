"""The network is the velocity."""

from torch import Tensor

from hamflow.errors import ConfigurationError
from hamflow.flows import HamiltonianFlow
from hamflow.parameterisation.base import PARAMETERISATIONS, Network, Parameterisation


@PARAMETERISATIONS.register("velocity")
class Velocity(Parameterisation):
    """V(x, t) = net(x_t at unit spread, noise label): regular for every t of every flow, loss unweighted.

    For the Oscillation HGF with alpha = 1 / sigma_data this is EDM's network up to its sign [derived, theory 4.5].
    """

    def __init__(self, flow: HamiltonianFlow, sigma_data: float):
        if not flow.has_variance:
            raise ConfigurationError(
                f"parameterisation 'velocity' needs velocities of finite variance, but those of flow '{flow.name}' have "
                f"{flow.options['degrees']:g} degrees",
                why="the velocity loss is infinite for 2 degrees or less",
                fix="take more than 2 degrees; flow 'pfgm' has parameterisation 'edm' for any number",
            )
        super().__init__(flow, sigma_data)

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        return network(self.flow.standardise(x, t, self.sigma_data), self.noise_label(x, t), label)
