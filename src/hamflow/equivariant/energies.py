"""Energies of positions or of momenta, each with its gradient written out: networks, radial and pairwise ones, quadratic ones.

A gradient is computed without automatic differentiation, so that training needs no second backward pass.
"""

import itertools
import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LIMIT = 8.0  # of the stiffness of a radial or pairwise energy: without a bound trajectories leave the finite numbers
SMOOTH = 1e-6  # added to squared distances: a distance itself has no derivative at 0
SPACING, STEPS = 0.25, 12  # of the soft steps of a distance that f sees, in units of the data's spread: narrow rings need them
REACH = 3.0  # the distance beyond which f hardly changes
NODES = 64  # of the quadrature along a radius


class Energy(nn.Module, ABC):
    """A scalar function of one half of phase space: K of momenta, or U of positions."""

    def forward(self, x: Tensor) -> Tensor:
        """The energy, [N, d] -> [N], less that at the origin: int_0^1 x . grad(x y) dy, by Gauss and Legendre's quadrature."""
        nodes, weights = (part.to(x) for part in quadrature())
        along = torch.stack([(x * self.gradient(x * y)).sum(1) for y in nodes])
        return weights @ along

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Its gradient, [N, d] -> [N, d]: for K the velocity, for U minus the force."""


def quadrature() -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's nodes and weights on [0, 1], float64 [NODES] each."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))
    return (nodes + 1) / 2, weights / 2


class Quadratic(Energy):
    """|x|^2 / (2 m) with a learned m: a kinetic energy of which the potential alone bends the trajectories.

    Source: fixed-kinetic flows, Souveton et al. 2023 (arXiv:2302.01955).
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_mass = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(1) / 2 * torch.exp(-self.log_mass)

    def gradient(self, x: Tensor) -> Tensor:
        return x * torch.exp(-self.log_mass)


class NetworkEnergy(Energy):
    """A multilayer perceptron with softplus activations: smooth, without any symmetry, its gradient bounded.

    Args:
        d: coordinates. width, depth: of the hidden layers.
        gain: factor on the initial weights (with `distance`, on those of the last layer). With torch's own (1) the forces are
            so small that the best isotropic normal law, a stationary point of the bound by symmetry, holds the training fast
            (theory 9.6).
        quadratic: add |x|^2 / 2, so that momenta move positions from the first step.
        distance: it sees soft steps of |x| beside x.
    """

    def __init__(
        self, d: int, width: int = 64, depth: int = 2, gain: float = 3.0, quadratic: bool = False, distance: bool = False
    ):
        super().__init__()
        self.d, self.distance = d, distance
        sizes = [d + distance * (1 + STEPS), *depth * [width]]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.last = nn.Linear(width, 1, bias=False)
        self.quadratic = float(quadratic)
        with torch.no_grad():
            for layer in (self.last, *([] if distance else layers)):
                layer.weight.mul_(gain)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([x, soft_steps((x.square().sum(1, keepdim=True) + SMOOTH).sqrt())], 1) if self.distance else x
        for layer in self.layers:
            h = functional.softplus(layer(h))
        return self.last(h)[:, 0] + self.quadratic / 2 * x.square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """The chain rule backwards through the layers: softplus' is the logistic function."""
        r = (x.square().sum(1, keepdim=True) + SMOOTH).sqrt()
        seen = soft_steps(r)
        h, slopes = torch.cat([x, seen], 1) if self.distance else x, []
        for layer in self.layers:
            before = layer(h)
            slopes.append(torch.sigmoid(before))
            h = functional.softplus(before)
        back = self.last.weight.expand(len(x), -1)
        for layer, slope in zip(reversed(self.layers), reversed(slopes), strict=True):
            back = (back * slope) @ layer.weight  # type: ignore[operator]  # a list of linear layers
        if self.distance:  # tanh' = 1 - tanh^2, and d|x| / dx = x / |x|
            widths = torch.tensor([REACH, *STEPS * [SPACING]]).to(x)
            back, steps = back.split([self.d, 1 + STEPS], 1)
            back = back + (steps * (1 - seen.square()) / widths).sum(1, keepdim=True) * x / r
        return back + self.quadratic * x


def soft_steps(r: Tensor) -> Tensor:
    """What a network sees of a distance, [..., 1] -> [..., 1 + STEPS]: narrow structure needs more than r itself."""
    return torch.cat([torch.tanh(r / REACH), torch.tanh((r - SPACING * torch.arange(STEPS).to(r)) / SPACING)], -1)


class Stiffness(nn.Module):
    """f(r): a bounded smooth function of a distance, from which radial and pairwise gradients f(r) x are made."""

    def __init__(self, width: int, depth: int, gain: float, offset: float):
        super().__init__()
        self.offset = offset
        sizes = [1 + STEPS, *depth * [width]]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        last = nn.Linear(width, 1)
        with torch.no_grad():
            last.weight.mul_(gain)
        self.network = nn.Sequential(*layers, last)

    def forward(self, square: Tensor) -> Tensor:
        """f of the squared distance, [...] -> [...]."""
        r = (square + SMOOTH).sqrt()[..., None]
        value = self.network(soft_steps(r))[..., 0]
        return self.offset + LIMIT * torch.tanh(value / LIMIT)

    def energy(self, square: Tensor) -> Tensor:
        """int_0^r f(s) s ds = r^2 int_0^1 f(r y) y dy, by Gauss and Legendre's quadrature."""
        y, weights = (part.to(square) for part in quadrature())
        return square * (self.forward(square[..., None] * y.square()) * y * weights).sum(-1)


class RadialEnergy(Energy):
    """An energy of |x| alone, by its gradient f(|x|) x: invariant under every rotation, by construction.

    Args:
        width, depth: of the network of f. gain: factor on its last weights (see `NetworkEnergy`).
        quadratic: f begins around 1 instead of 0.
    """

    def __init__(self, width: int = 64, depth: int = 2, gain: float = 3.0, quadratic: bool = False):
        super().__init__()
        self.stiffness = Stiffness(width, depth, gain, float(quadratic))

    def forward(self, x: Tensor) -> Tensor:
        return self.stiffness.energy(x.square().sum(1))

    def gradient(self, x: Tensor) -> Tensor:
        return self.stiffness(x.square().sum(1))[:, None] * x


class PairwiseEnergy(Energy):
    """A sum over pairs of particles of an energy of their distance: invariant under SE(d) and under any renumbering.

    Its gradient is sum_j f(|x_i - x_j|) (x_i - x_j), divided by the number of particles.

    Args:
        particles: n; x is [N, n d], one particle after the other. Others as of `RadialEnergy`.
    """

    def __init__(self, particles: int, width: int = 64, depth: int = 2, gain: float = 3.0, quadratic: bool = False):
        super().__init__()
        self.particles, self.stiffness = particles, Stiffness(width, depth, gain, float(quadratic))

    def forward(self, x: Tensor) -> Tensor:
        return self.stiffness.energy(self._apart(x).square().sum(-1)).sum((1, 2)) / (2 * self.particles)

    def gradient(self, x: Tensor) -> Tensor:
        apart = self._apart(x)
        pull = self.stiffness(apart.square().sum(-1))[..., None] * apart
        return pull.sum(2).reshape(x.shape) / self.particles

    def _apart(self, x: Tensor) -> Tensor:
        """x_i - x_j, [N, n, n, d]."""
        each = x.reshape(len(x), self.particles, -1)
        return each[:, :, None] - each[:, None]


def perceptron(inputs: int, outputs: int, width: int, depth: int) -> nn.Sequential:
    """A multilayer perceptron with SiLU activations, its last layer small at first."""
    sizes = [inputs, *depth * [width]]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.SiLU()]
    last = nn.Linear(width, outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
    return nn.Sequential(*layers, last)


def log_normal(squares: Tensor, log_scales: Tensor, dimension: int) -> Tensor:
    """ln N of a normal vector: from |z|^2 of its unit form [N], and the logarithm of its volume factor [N] or scalar."""
    return -0.5 * squares - log_scales - 0.5 * dimension * math.log(2 * math.pi)
