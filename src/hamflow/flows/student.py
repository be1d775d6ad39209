"""Linear flows whose velocity has heavy tails: a Student-t vector, of one normal vector and one chi-square number."""

import math
from functools import cached_property
from typing import Literal

import torch
from scipy.special import gammainccinv, gammaincinv
from torch import Tensor

from hamflow.draws import Draw
from hamflow.dynamics import broadcast
from hamflow.errors import NotOffered
from hamflow.flows.base import LinearFlow, Velocity
from hamflow.registry import Positive

Degrees = Positive | Literal["infinity"]
NODES = 256  # of the quadrature over g
REMOTE = 1e-6  # g of velocities a thousand times the normal ones, which the quadrature reaches
SMALLEST = 1e-30  # g at least: the squares of float32 numbers do not overflow; one is met below D = 1 only


class Student(LinearFlow):
    """Noise n / sqrt(g), n ~ N(0, I_N), g ~ chi^2_D / D: density ~ (1 + |v|^2 / D)^{-(N + D) / 2}; D infinite: normal.

    Its variance D / (D - 2) is infinite for D <= 2, its mean does not exist for D <= 1; E[v_0 | x_t] exists for every D > 0.
    V gives E[x_0 | x_t], as for every linear flow, but no score: that of x_t is no linear function of V [theory 4.7].
    """

    degrees: Degrees

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        normal = draw.normal("noise", shape)
        if self.degrees == "infinity":
            return normal
        g = draw.chi_square("radius", self.degrees) / self.degrees
        return normal / broadcast(g.clamp(min=SMALLEST).sqrt(), normal).to(normal)

    @property
    def has_variance(self) -> bool:
        return self.degrees == "infinity" or self.degrees > 2

    def scales(self) -> tuple[Tensor, Tensor]:
        weights, g = self._quadrature
        return weights, g.rsqrt()

    @cached_property
    def _quadrature(self) -> tuple[Tensor, Tensor]:
        """Weights and nodes of the law of g: the trapezium rule in ln g, whose error falls exponentially."""
        if self.degrees == "infinity":
            return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        half = self.degrees / 2
        lowest, low, high = gammaincinv(half, 1e-300) / half, gammaincinv(half, 1e-16) / half, gammainccinv(half, 1e-16) / half
        y = torch.linspace(math.log(max(lowest, min(low, REMOTE))), math.log(high), NODES, dtype=torch.float64)
        return (half * (y - y.exp())).softmax(0), y.exp()  # density of ln g: g^{D/2} e^{-g D/2}

    def widening(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor | float:
        """The noise within x_t against N(0, I): data N(0, s^2 I) have the denoiser that they have under normal noise w n.

        Given g it is D = a s^2 x / (a^2 s^2 + b^2 / g), hence w^2 = E[1 / h | x] / E[g / h | x] with h = a^2 s^2 g + b^2 and
        the posterior of g, by quadrature [derived]. [N]; 1 for infinite D.
        """
        if self.degrees == "infinity":
            return 1.0
        a, b, _, _ = self.coefficients(torch.as_tensor(t, dtype=torch.float64, device=x.device).reshape(-1, 1))
        weights, g = (part.to(x.device) for part in self._quadrature)
        h = (a * sigma_data) ** 2 * g + b**2  # g times the variance of x_t given g
        u = g / h
        square = x.double().flatten(1).square().sum(1, keepdim=True)
        posterior = (weights.log() + (u.log() * x[0].numel() - u * square) / 2).softmax(1)
        return ((posterior / h).sum(1) / (posterior * u).sum(1)).sqrt().to(x.dtype)

    def standardise(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor:
        a, b, _, _ = self._at(t, x)
        return x / torch.sqrt((a * sigma_data) ** 2 + (b * broadcast(self.widening(x, t, sigma_data), x)) ** 2)

    def smoothed_score(self, velocity: Velocity, y: Tensor, sigma: float | Tensor) -> Tensor:
        raise NotOffered(
            f"flow '{self.name}' has no score: its noise is not normal, so that its velocity determines the denoiser of "
            "that noise only"
        )
