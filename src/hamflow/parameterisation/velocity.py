"""The network is the velocity."""

from torch import Tensor

from hamflow.parameterisation.base import PARAMETERISATIONS, Network, Parameterisation


@PARAMETERISATIONS.register("velocity")
class Velocity(Parameterisation):
    """V(x, t) = net(x_t at unit spread, noise label): regular for every t of every flow, loss unweighted.

    For the Oscillation HGF with alpha = 1 / sigma_data this is EDM's network up to its sign [derived, theory 4.5].
    """

    def velocity(self, network: Network, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        return network(self.flow.standardise(x, t, self.sigma_data), self.noise_label(x, t), label)
