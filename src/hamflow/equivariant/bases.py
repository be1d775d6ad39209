"""Laws of phase space from which a flow starts: unit noise in, states and their log-density out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hamflow.equivariant.energies import log_normal
from hamflow.errors import ConfigurationError
from hamflow.registry import Count


class Base(nn.Module, ABC):
    """pi(q, p) = pi_q(q) pi_p(p).

    Attributes:
        d: coordinates of q. free: dimensions of the space of q on which it is a law; d, or fewer.
    """

    d: int

    @property
    def free(self) -> int:
        return self.d

    @abstractmethod
    def draw(self, noise_q: Tensor, noise_p: Tensor) -> tuple[Tensor, Tensor]:
        """A state from two unit normal tensors [N, d]."""

    @abstractmethod
    def log_prob(self, q: Tensor, p: Tensor) -> Tensor:
        """ln pi(q, p), [N, d] x [N, d] -> [N], nats."""


class NormalBase(Base):
    """Normal with learned scales.

    Args:
        d: coordinates.
        isotropic: one scale for all positions and one for all momenta, and no mean: every rotation leaves it as it is.
            Otherwise a scale a coordinate, and a mean of the positions.
        spread: scale of the positions, kept; None: it is learned, from 1.
    """

    log_q: Tensor

    def __init__(self, d: int, isotropic: bool = False, spread: float | None = None):
        super().__init__()
        self.d = d
        size = 1 if isotropic else d
        if spread is None:
            self.log_q = nn.Parameter(torch.zeros(size))
        else:
            self.register_buffer("log_q", torch.full((size,), math.log(spread)))
        self.log_p = nn.Parameter(torch.zeros(size))
        self.mean = None if isotropic else nn.Parameter(torch.zeros(d))

    def draw(self, noise_q: Tensor, noise_p: Tensor) -> tuple[Tensor, Tensor]:
        centre = 0.0 if self.mean is None else self.mean
        return centre + self.log_q.exp() * noise_q, self.log_p.exp() * noise_p

    def log_prob(self, q: Tensor, p: Tensor) -> Tensor:
        q = q if self.mean is None else q - self.mean
        squares = (q * torch.exp(-self.log_q)).square().sum(1) + (p * torch.exp(-self.log_p)).square().sum(1)
        logs = self.log_q.expand(self.d).sum() + self.log_p.expand(self.d).sum()
        return log_normal(squares, logs, 2 * self.d)


class SoftUniform(Base):
    """Each coordinate has the density s(b (x + h)) s(b (h - x)) / Z, s the logistic function: uniform with soft edges.

    With s(u) s(v) = (s(u) + s(v) - 1) / (1 - e^-(u + v)) its integral is Z = 2 h / (1 - e^-2bh), and its distribution function
    can be inverted: e^bx = (E - 1) / (e^bh - E e^-bh), E = e^2bhu, for u uniform.

    Args:
        d: coordinates. half: h at first, learned, one for positions and one for momenta. sharpness: b h; larger: sharper edges.
    Source: the base law of arXiv:1909.13789 is of this kind; the integral is derived, theory 9.4.
    """

    def __init__(self, d: int, half: float = 2.0, sharpness: float = 6.0):
        super().__init__()
        self.d, self.sharpness = d, sharpness
        self.log_q, self.log_p = (nn.Parameter(torch.full((1,), math.log(half))) for _ in range(2))

    def draw(self, noise_q: Tensor, noise_p: Tensor) -> tuple[Tensor, Tensor]:
        return self._draw(noise_q) * self.log_q.exp(), self._draw(noise_p) * self.log_p.exp()

    def log_prob(self, q: Tensor, p: Tensor) -> Tensor:
        return self._log_prob(q * torch.exp(-self.log_q), self.log_q) + self._log_prob(p * torch.exp(-self.log_p), self.log_p)

    def _draw(self, noise: Tensor) -> Tensor:
        """For h = 1."""
        b, u = self.sharpness, torch.special.ndtr(noise.double())
        grown = 2 * b * u
        return ((torch.log(torch.expm1(grown)) - torch.log(math.exp(b) - torch.exp(grown - b))) / b).to(noise)

    def _log_prob(self, x: Tensor, log_half: Tensor) -> Tensor:
        b = self.sharpness
        log_z = math.log(2) - math.log1p(-math.exp(-2 * b))
        edges = functional.logsigmoid(b * (1 + x)) + functional.logsigmoid(b * (1 - x))
        return (edges - log_z - log_half).sum(1)


class MeanFreeNormal(Base):
    """Isotropic normal on the states whose particles have mean position and mean momentum zero.

    It is a law on the 2 (n - 1) d-dimensional subspace, its density with respect to the volume there; SE(d) leaves it as it is,
    where no normal law on all of space is invariant under translations.

    Args:
        d: coordinates, of all particles together. particles: n >= 2.
    """

    def __init__(self, d: int, particles: int):
        super().__init__()
        if particles < 2 or d % particles:
            raise ConfigurationError(
                f"a mean-free law needs at least 2 particles, equally many coordinates each; got {particles} of {d}",
                why="one particle without its mean is nothing",
                fix="set `particles`, or use another base law",
            )
        self.d, self.particles = d, particles
        self.log_q, self.log_p = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    @property
    def free(self) -> int:
        return self.d - self.d // self.particles

    def draw(self, noise_q: Tensor, noise_p: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_q.exp() * centred(noise_q, self.particles), self.log_p.exp() * centred(noise_p, self.particles)

    def log_prob(self, q: Tensor, p: Tensor) -> Tensor:
        q, p = centred(q, self.particles), centred(p, self.particles)
        free = self.free
        squares = q.square().sum(1) * torch.exp(-2 * self.log_q) + p.square().sum(1) * torch.exp(-2 * self.log_p)
        return log_normal(squares, free * (self.log_q + self.log_p), 2 * free)


def centred(x: Tensor, particles: int) -> Tensor:
    """Without the mean over the particles, [N, n d] -> [N, n d]."""
    each = x.reshape(len(x), particles, -1)
    return (each - each.mean(1, keepdim=True)).reshape(x.shape)


BASES: dict[str, Callable[[int, Count, bool, float | None], Base]] = {
    "normal": lambda d, particles, symmetric, spread: NormalBase(d, isotropic=symmetric, spread=spread),
    "soft_uniform": lambda d, particles, symmetric, spread: SoftUniform(d),
    "mean_free": lambda d, particles, symmetric, spread: MeanFreeNormal(d, particles),
}
