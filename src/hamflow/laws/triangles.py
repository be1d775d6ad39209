"""Three particles in the plane at the corners of a triangle that is turned and mirrored at random, but for noise."""

import math

import numpy as np
import torch
from torch import Tensor


class TriangleDensity:
    """p(x) = (p_+(x) + p_-(x)) / 2 on the states of three particles whose mean position is zero.

    The corners of an equilateral triangle of either chirality are t_k = R e^(+-2 pi i k / 3), the particles are
    x = e^(i theta) t + noise with theta uniform, the noise normal without its mean. As |x - e^(i theta) t|^2 =
    |x|^2 + |t|^2 - 2 Re(e^(-i theta) <t, x>), the mean over theta is a Bessel function:
    ln p_+- = -(|x|^2 + |t|^2) / (2 s^2) + ln I_0(|<t, x>| / s^2) - 2 ln(2 pi s^2).
    It is invariant under SE(2) acting on the three together, under renumbering and under reflection.

    Args:
        radius: R, data units, > 0. sd: s of the noise, a coordinate, data units, > 0.
    """

    particles, dimension = 3, 6

    def __init__(self, radius: float = 2.0, sd: float = 0.3):
        self.radius, self.sd = float(radius), float(sd)
        angles = 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
        self.corners = radius * torch.stack([torch.polar(torch.ones(3).double(), sign * angles) for sign in (1, -1)])

    def log_prob(self, x) -> Tensor:
        """Log-density with respect to volume on the mean-free states, [N, 6] -> [N], nats; x is mean-free."""
        x = torch.as_tensor(x, dtype=torch.float64)
        inner = (torch.view_as_complex(x.reshape(-1, 3, 2).contiguous()) @ self.corners.conj().T).abs() / self.sd**2
        squares = x.square().sum(1, keepdim=True) + 3 * self.radius**2
        log_bessel = torch.log(torch.special.i0e(inner)) + inner
        log_each = log_bessel - squares / (2 * self.sd**2) - 2 * math.log(2 * math.pi * self.sd**2)
        return log_each.logsumexp(1) - math.log(2)

    def sample(self, n: int, rng: np.random.Generator) -> Tensor:
        """n states, [n, 6], float64, one particle after the other."""
        corners = self.corners[torch.from_numpy(rng.integers(0, 2, n))]
        turn = torch.from_numpy(rng.uniform(0, 2 * math.pi, (n, 1)))
        noise = self.sd * torch.from_numpy(rng.standard_normal((n, 3, 2)))
        noise = noise - noise.mean(1, keepdim=True)
        return (torch.view_as_real(corners * torch.polar(torch.ones_like(turn), turn)) + noise).reshape(n, 6)
