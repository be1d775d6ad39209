"""Hamiltonian normalizing flows: motions under learned Hamiltonians, one after the other, and the densities that they carry."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hamflow.dynamics.separable import trajectory
from hamflow.equivariant.bases import Base
from hamflow.equivariant.encoders import Encoder
from hamflow.equivariant.energies import Energy


class Hamiltonian(nn.Module):
    """H(q, p) = K(p) + U(q)."""

    def __init__(self, kinetic: Energy, potential: Energy):
        super().__init__()
        self.kinetic, self.potential = kinetic, potential

    def forward(self, q: Tensor, p: Tensor) -> Tensor:
        """H, [N, d] x [N, d] -> [N]."""
        return self.kinetic(p) + self.potential(q)

    def velocity(self, p: Tensor) -> Tensor:
        """dK/dp, [N, d]."""
        return self.kinetic.gradient(p)

    def force(self, q: Tensor) -> Tensor:
        """-dU/dq, [N, d]."""
        return -self.potential.gradient(q)


class HamiltonianSequence(nn.Module):
    """Motion under H_1, then H_2, ...: invertible, and exactly volume preserving.

    Args:
        hamiltonians: in their order.
        steps: of the integrator, under each.
        step: length of a step at first; each Hamiltonian learns its own.
        scheme: a name of `hamflow.dynamics.SCHEMES`.
    Source: arXiv:1909.13739, arXiv:1909.13789; theory 9.3.
    """

    def __init__(self, hamiltonians: Sequence[Hamiltonian], steps: int = 4, step: float = 0.25, scheme: str = "leapfrog"):
        super().__init__()
        self.hamiltonians = nn.ModuleList(hamiltonians)
        self.log_steps = nn.Parameter(torch.full((len(hamiltonians),), math.log(step)))
        self.steps, self.scheme = steps, scheme

    def forward(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Phi(q, p), [N, d] each."""
        *_, (_, q_end, p_end) = self.visited(q, p)
        return q_end, p_end

    def inverse(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Phi^-1(q, p), [N, d] each."""
        *_, (_, q_start, p_start) = self.visited(q, p, backwards=True)
        return q_start, p_start

    def visited(self, q: Tensor, p: Tensor, backwards: bool = False) -> Iterator[tuple[Hamiltonian, Tensor, Tensor]]:
        """(H_i, q, p) after every step of the integrator, H_i the Hamiltonian of that step."""
        sign = -1 if backwards else 1
        for index in range(len(self.hamiltonians))[::sign]:
            hamiltonian: Hamiltonian = self.hamiltonians[index]  # type: ignore[assignment]
            duration = sign * self.steps * self.log_steps[index].exp()
            path = trajectory(hamiltonian.velocity, hamiltonian.force, q, p, duration, self.steps, self.scheme)
            for q, p in path:
                yield hamiltonian, q, p


class HamiltonianDensity(nn.Module):
    """p(q) = int pi(Phi^-1(q, p)) dp, with an encoder h(p | q) for its bounds.

    Args:
        flow: Phi. base: pi. encoder: h.
        unit: the model sees q / unit, so that its networks meet numbers of size 1; data units.
    """

    def __init__(self, flow: HamiltonianSequence, base: Base, encoder: Encoder, unit: float = 1.0):
        super().__init__()
        self.flow, self.base, self.encoder, self.unit = flow, base, encoder, unit

    def log_weights(self, x: Tensor, noise: Tensor) -> Tensor:
        """ln pi(Phi^-1(q, p)) - ln h(p | q) for p drawn from h, whose exponential has the mean p(x).

        Args:
            x: data, [N, d], data units. noise: unit normal, [S, N, d].
        Returns:
            [S, N], nats.
        """
        q, p, log_h = self.encode(x, noise)
        return self.base.log_prob(*self.flow.inverse(q, p)).view(noise.shape[:2]) - log_h

    def encode(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(q [S N, d], p [S N, d], ln h(p | q) of x's own units [S, N]): the states that the bound follows backwards."""
        q = (x / self.unit).expand(noise.shape).flatten(0, 1)
        p, log_h = self.encoder(q, noise.flatten(0, 1))
        return q, p, log_h.view(noise.shape[:2]) + self.base.free * math.log(self.unit)

    def bound(self, x: Tensor, noise: Tensor) -> Tensor:
        """The importance-weighted lower bound of ln p(x), [N], nats: with S = 1 the ELBO; it rises with S towards ln p.

        Source: Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519); theory 9.5.
        """
        return torch.logsumexp(self.log_weights(x, noise), 0) - math.log(len(noise))

    def draw(self, noise_q: Tensor, noise_p: Tensor) -> Tensor:
        """Samples, [N, d], data units, from unit normal noise."""
        q, _ = self.flow(*self.base.draw(noise_q, noise_p))
        return q * self.unit
