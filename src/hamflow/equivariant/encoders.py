"""Variational encoders h(p | q): the law of the momenta that belong to a position."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hamflow.equivariant.bases import centred
from hamflow.equivariant.energies import SMOOTH, log_normal, perceptron
from hamflow.errors import ConfigurationError


class Encoder(nn.Module, ABC):
    """h(p | q), normal for a given q."""

    @abstractmethod
    def forward(self, q: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(p [N, d], ln h(p | q) [N]) from positions and unit normal noise, both [N, d]."""


class CartesianEncoder(Encoder):
    """Mean and covariance are networks of q and |q|.

    Args:
        d: coordinates. full: a full covariance, else a diagonal one. width, depth: of the network.
    """

    def __init__(self, d: int, full: bool = False, width: int = 64, depth: int = 2):
        super().__init__()
        self.d, self.full = d, full
        self.below = torch.tril_indices(d, d, -1)
        self.sizes = [d, d, self.below.shape[1] if full else 0]
        self.network = perceptron(d + 1, sum(self.sizes), width, depth)

    def forward(self, q: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        r = (q.square().sum(1, keepdim=True) + SMOOTH).sqrt()
        mean, logs, corner = self.network(torch.cat([q, r], 1)).split(self.sizes, 1)
        spread = logs.exp() * noise
        if self.full:
            lower = q.new_zeros(len(q), self.d, self.d)
            lower[:, self.below[0], self.below[1]] = corner
            spread = spread + (lower @ noise[..., None])[..., 0]
        return mean + spread, log_normal(noise.square().sum(1), logs.sum(1), self.d)


class RadialEncoder(Encoder):
    """p = (a + s e) q/|q| and s' e' across it, for unit noise (e, e'), with a, s, s' functions of |q|: equivariant under O(d).

    The exact conditional of a rotation-invariant flow is of this kind up to its shape, and no Cartesian diagonal one.

    Args:
        d: coordinates. width, depth: of the network.
    Source: [derived] theory 9.5.
    """

    def __init__(self, d: int, width: int = 64, depth: int = 2):
        super().__init__()
        self.d, self.network = d, perceptron(1, 3, width, depth)

    def forward(self, q: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        r = (q.square().sum(1, keepdim=True) + SMOOTH).sqrt()
        outwards, mean_log = q / r, self.network(r)
        mean, along, across = mean_log.split(1, 1)
        part = (noise * outwards).sum(1, keepdim=True)
        norm = outwards.square().sum(1, keepdim=True)  # 1, but at the very centre
        rest = noise - part * outwards
        p = (mean + along.exp() * part) * outwards + across.exp() * rest
        # the map noise -> p stretches along q/|q| by this factor, which is e^along where |outwards| = 1
        stretch = torch.log(across.exp() * (1 - norm) + along.exp() * norm)
        return p, log_normal(noise.square().sum(1), (stretch + (self.d - 1) * across)[:, 0], self.d)


class ParticleEncoder(Encoder):
    """p_i = sum_j a(|q_i - q_j|) (q_i - q_j) / n plus mean-free isotropic noise of a learned scale: equivariant under SE(d).

    Its law lies on the mean-free momenta, like that of `MeanFreeNormal`.

    Args:
        d: coordinates, of all particles. particles: n. width, depth: of the networks.
    """

    def __init__(self, d: int, particles: int, width: int = 64, depth: int = 2):
        super().__init__()
        if d % particles:
            raise ConfigurationError(f"{d} coordinates are not those of {particles} particles", fix="set `particles`")
        self.d, self.particles = d, particles
        self.pull, self.scale = perceptron(1, 1, width, depth), perceptron(1, 1, width, depth)

    def forward(self, q: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        each = q.reshape(len(q), self.particles, -1)
        apart = each[:, :, None] - each[:, None]
        r = (apart.square().sum(-1, keepdim=True) + SMOOTH).sqrt()
        mean = (self.pull(r) * apart).mean(2).reshape(q.shape)
        log = self.scale(r).mean((1, 2))
        free, noise = self.d - self.d // self.particles, centred(noise, self.particles)
        return mean + log.exp() * noise, log_normal(noise.square().sum(1), free * log[:, 0], free)
