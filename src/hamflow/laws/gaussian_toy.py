"""Gaussian data under a linear force: every quantity of Hamiltonian score matching in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianToy:
    """Data N(0, s^2) in each dimension under F(x) = -a x. The score is -x / s^2, so F is right at a = 1 / s^2.

    With C = cos(w t), S = sin(w t) / w, w^2 = a (cosh, sinh for a < 0; 1, t for a = 0) the motion is
        x_t = C x_0 + S v_0,  v_t = -a S x_0 + C v_0,   C^2 + a S^2 = 1.
    (x_t, v_t) is Gaussian with Var x_t = C^2 s^2 + S^2 and Cov(x_t, v_t) = C S (1 - a s^2), and E[v_t | x_t]
    follows.

    Attributes: s: standard deviation, > 0. a: stiffness of the force, any sign; a tensor to differentiate in it.
    Source: [derived] theory 2.5.
    """

    s: float
    a: float | Tensor

    def motion(self, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """(C, S) at times t."""
        t = torch.as_tensor(t, dtype=torch.float64)
        a = torch.as_tensor(self.a, dtype=torch.float64)
        if a > 0:
            return torch.cos(a.sqrt() * t), torch.sin(a.sqrt() * t) / a.sqrt()
        if a < 0:
            return torch.cosh((-a).sqrt() * t), torch.sinh((-a).sqrt() * t) / (-a).sqrt()
        return torch.ones_like(t), t

    def slope(self, t: float | Tensor) -> Tensor:
        """V(x, t) / x of the optimal predictor V = E[v_t | x_t = x]."""
        c, s = self.motion(t)
        return c * s * self._mismatch / (c.square() * self.s**2 + s.square())

    def discrepancy(self, t: float | Tensor) -> Tensor:
        """D(t) = E|V|^2 per dimension."""
        c, s = self.motion(t)
        return (c * s * self._mismatch).square() / (c.square() * self.s**2 + s.square())

    @property
    def explicit_loss(self) -> Tensor:
        """L_esm = 1/2 E|F - score|^2 per dimension."""
        return torch.as_tensor(0.5 * self._mismatch**2 / self.s**2, dtype=torch.float64)

    @property
    def taylor_slope(self) -> Tensor:
        """c in D(t) = 2 t^2 L_esm (1 - c t^2 + O(t^4))."""
        return torch.as_tensor(self.a / 3 + 1 / self.s**2, dtype=torch.float64)

    @property
    def _mismatch(self) -> float | Tensor:
        return 1 - self.a * self.s**2
