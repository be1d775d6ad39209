"""Force fields F(x, t). Any callable of (x, t) that returns a tensor shaped like x is one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hamflow.dynamics.motion import fold

Force = Callable[[Tensor, float | Tensor], Tensor]


def zero(x: Tensor, t: float | Tensor) -> Tensor:
    """No force: diffusion and flow matching."""
    return torch.zeros_like(x)


@dataclass(frozen=True)
class Harmonic:
    """F = -alpha^2 x: the Oscillation HGF (arXiv:2410.20470). alpha: angular frequency, radians per unit time."""

    alpha: float

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        return -(self.alpha**2) * x


@dataclass(frozen=True)
class Gradient:
    """F = -grad U of a potential U: [N, *dims] -> [N]; differentiable itself, so that training can reach U's parameters."""

    potential: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.potential(x).sum(), x, create_graph=differentiable)
        return -gradient


@dataclass(frozen=True)
class ElasticBox:
    """Walls that reflect (the "infinite force" of the Reflection HGF, arXiv:2410.20470), and a force inside, zero by default.

    An integrator that meets `confine` applies it after each drift.
    """

    low: float
    high: float
    inside: Force = zero

    def __call__(self, x: Tensor, t: float | Tensor) -> Tensor:
        return self.inside(x, t)

    def confine(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Reflect particles that left the box back into it."""
        return fold(x, v, self.low, self.high)
