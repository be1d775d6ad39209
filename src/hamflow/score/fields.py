"""Networks as score fields and as velocity predictors."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hamflow import draws
from hamflow.dynamics import broadcast
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError, nearest

FORMS = ("plain", "scaled", "residual")


class PlainMLP(nn.Module):
    """A multilayer perceptron of [x, label] without position or time features: the cheapest network for
    smooth 2-D fields.

    Args: shape: (D,). width: of the hidden layers. depth: hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 128, depth: int = 3):
        super().__init__()
        if len(shape) != 1:
            raise ConfigurationError(f"network 'plain' takes points, the data have shape {shape}", fix="use kind unet")
        sizes = [shape[0] + 1, *[width] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        # The last layer is not set to zero: with it at zero the others see no gradient at first, which Adam's
        # long memory
        # of squared gradients punishes for a thousand steps (min-max error .30 against .16 after 1000
        # updates).
        self.layers = nn.Sequential(*layers, nn.Linear(width, shape[0]))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        """x [N, D], noise_label [N] or [1] -> [N, D]."""
        return self.layers(torch.cat([x, noise_label.to(x).expand(len(x))[:, None]], dim=1))


def build_network(spec: Mapping[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A network {kind: plain | mlp | unet, ...}, its initial weights a function of the seed; the global
    generator is restored."""
    options = dict(spec)
    with draws.seeded("cpu", seed, "weights of a field"):
        if options.pop("kind", None) == "plain":
            return PlainMLP(shape, **options)
        from hamflow import networks

        return networks.build(spec, shape)


class ScoreField(nn.Module):
    """s(x) = network(x / spread) / spread, a force without time dependence.

    Args: network: forward(x, noise_label), shaped as x. spread: root mean square of the data, data units.
    """

    def __init__(self, network: nn.Module, spread: float = 1.0):
        super().__init__()
        self.network, self.spread = network, float(spread)

    def forward(self, x: Tensor, t: float | Tensor = 0.0) -> Tensor:
        """[N, *dims] -> [N, *dims], data units^-1."""
        return self.network(x / self.spread, x.new_zeros(1)) / self.spread


class VelocityPredictor(nn.Module):
    """V(x, t), the critic of Hamiltonian score matching.

    The optimum is t (F - grad log p) + O(t^3) (SPEC 1.4), which the forms use as follows, N = network(x /
    spread, t / horizon):
        plain:    V = N
        scaled:   V = t N / spread:  N need not learn the factor t
        residual: V = t (F - N / spread):  to leading order N has a target, the score, that does not move with
            the force
    Args:
        network: forward(x, noise_label), shaped as x. form: one of FORMS.
        horizon: T, time units; the network is told t / T. spread: root mean square of the data, data units.
    """

    def __init__(self, network: nn.Module, form: str = "scaled", horizon: float = 1.0, spread: float = 1.0):
        super().__init__()
        if form not in FORMS:
            raise ConfigurationError(f"unknown form '{form}' of the velocity predictor", fix=nearest(form, FORMS))
        self.network, self.form, self.horizon, self.spread = network, form, float(horizon), float(spread)

    def forward(self, x: Tensor, t: Tensor, force: Force | None = None) -> Tensor:
        """x [N, *dims], t [N] -> [N, *dims], a velocity; `force` is needed by the residual form and treated
        as a constant."""
        field = self.network(x / self.spread, t / self.horizon)
        if self.form == "plain":
            return field
        field = field / self.spread
        if self.form == "residual":
            if force is None:
                raise ConfigurationError("a velocity predictor of the residual form must be given the force")
            field = force(x, t) - field
        return broadcast(t, x) * field
