"""Two concentric rings: a law that every rotation leaves as it is."""

import math
from collections.abc import Sequence

import numpy as np
import torch


class RingsDensity:
    """p(x) = sum_r exp(-(|x| - r)^2 / (2 s^2)) / Z on the plane: rings of equal peak height.

    In polar form Z = 2 pi sum_r I_r, I_r the integral over rho > 0 of rho exp(-(rho - r)^2 / (2 s^2)):
    I_r = s^2 exp(-r^2 / (2 s^2)) + sqrt(2 pi) s r Phi(r / s), Phi the normal distribution function.

    Args:
        radii: r, data units, >= 0.
        sd: s, data units, > 0.
    """

    bounded = False

    def __init__(self, radii: Sequence[float] = (1.0, 3.0), sd: float = 0.2):
        self.radii, self.sd = torch.tensor(radii, dtype=torch.float64), float(sd)
        ratio = self.radii / sd
        gauss = torch.exp(-ratio.square() / 2)
        self.mass = sd**2 * (gauss + math.sqrt(2 * math.pi) * ratio * torch.special.ndtr(ratio))
        self.log_norm = math.log(2 * math.pi * float(self.mass.sum()))

    def log_prob(self, x) -> torch.Tensor:
        """Log-density, [N, 2] -> [N], nats."""
        x = torch.as_tensor(x, dtype=torch.float64)
        return self._log_peaks(x.norm(dim=1)).logsumexp(1) - self.log_norm

    def score(self, x) -> torch.Tensor:
        """Gradient of the log-density, [N, 2] -> [N, 2]; zero at the centre, where it has no direction."""
        x = torch.as_tensor(x, dtype=torch.float64)
        rho = x.norm(dim=1)
        pull = (self.radii - rho[:, None]) / self.sd**2
        radial = (self._log_peaks(rho).softmax(1) * pull).sum(1)
        return radial[:, None] * torch.nn.functional.normalize(x, dim=1)

    def support(self, x) -> torch.Tensor:
        """Everywhere, [N, 2] -> bool [N]."""
        return torch.ones(len(torch.as_tensor(x)), dtype=torch.bool)

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        """n points, [n, 2], float64, by exact rejection."""
        ring = rng.choice(len(self.radii), size=n, p=(self.mass / self.mass.sum()).numpy())
        rho = self._sample_radii(self.radii.numpy()[ring], rng)
        angle = rng.uniform(0, 2 * math.pi, n)
        return torch.from_numpy(rho[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))

    def _log_peaks(self, rho: torch.Tensor) -> torch.Tensor:
        """-(rho - r)^2 / (2 s^2), [N] -> [N, R]."""
        return -((rho[:, None] - self.radii) / self.sd).square() / 2

    def _sample_radii(self, r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """rho > 0 with density rho N(rho; r, s^2) up to a constant, for each r > 0.

        1 + u <= e^u with u = (rho - r) / r gives rho <= r e^u, and e^u N(rho; r, s^2) is
        N(rho; r + s^2 / r, s^2) up to a constant: propose from that, accept with probability (1 + u) e^-u.
        """
        rho = np.full(len(r), np.nan)
        waiting = np.arange(len(r))
        while len(waiting):
            centre = r[waiting]
            proposal = centre + self.sd**2 / centre + self.sd * rng.standard_normal(len(waiting))
            u = proposal / centre - 1
            accepted = (rng.random(len(waiting)) < (1 + u) * np.exp(-u)) & (proposal > 0)
            rho[waiting[accepted]] = proposal[accepted]
            waiting = waiting[~accepted]
        return rho
