"""The checkerboard under free flight between elastic walls: exact density and velocity at every time.

The 4 x 4 checkerboard on [-2, 2]^2 has density p(x, y) = (1 + s(x) s(y)) / 16, where s = +-1 alternates from
cell to cell. Under flight with v_0 ~ N(0, S^2 I) and reflection each coordinate obeys the heat equation with
reflecting walls for a "time" (S t)^2 / 2 (theory 5.2, 5.7), which keeps products: with w(x, t) the solution from s
    p_t(x, y) = (1 + w(x, t) w(y, t)) / 16,       V = -S^2 t grad log p_t.
With L = 4 and cells [e_j, e_(j+1)], e_j = -2 + j, of signs s_j,
    w = sum_n c_n exp(-(n pi S t / L)^2 / 2) cos(n pi (x + 2) / L),
    c_n = (2 / (n pi)) sum_j s_j [sin(n pi (j + 1) / 4) - sin(n pi j / 4)]       (Neumann series),
    w = sum_j s_j [Phi((x - e_j) / S t) - Phi((x - e_(j+1)) / S t)]              (images: all mirrored cells).
The series converges fast for large S t, the images for small; they agree to rounding in between.
"""

import math

import torch
from torch import Tensor

LOW, HIGH, CELLS = -2.0, 2.0, 4
WIDTH = HIGH - LOW
SERIES_FROM = 0.3 * WIDTH / CELLS  # S t above which the series is used
UNRESOLVED = 1e-12  # of 1 + w w', whose rounding is 1e-16
NEGLIGIBLE = 45.0  # terms beyond exp(-45) are left out


class ReflectedCheckerboard:
    """The law of x_t for data on the 4 x 4 checkerboard under Reflection HGF in the box [-2, 2]^2.

    Args:
        speed: S, standard deviation of each velocity component, data units / time.
    """

    def __init__(self, speed: float = 1.0):
        self.speed = speed

    def density(self, x: Tensor, t: float) -> Tensor:
        """p_t, [N, 2] -> [N]; t > 0."""
        w, _ = wave(x.double(), self.speed * float(t))
        return (1 + w[:, 0] * w[:, 1]) / WIDTH**2

    def velocity(self, x: Tensor, t: float | Tensor) -> Tensor:
        """V(x, t) = E[v_t | x_t = x], [N, 2] -> [N, 2]; t > 0, scalar. No component normal to a wall.

        Where p_t is below 1e-12 of its mean, deep in a white cell at small t, V is not resolved, and tends to 0.
        """
        w, slope = wave(x.double(), self.speed * float(t))
        other, density = w.flip(1), (1 + w[:, :1] * w[:, 1:]).clamp_min(UNRESOLVED)
        return -(self.speed**2) * float(t) * slope * other / density


def wave(x: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """w and dw/dx at S t = spread > 0, elementwise, for x within half a box of the box."""
    if not spread > 0:
        raise ValueError(f"the law at t = 0 has no gradient; S t must be > 0, got {spread}")
    return _series(x, spread) if spread > SERIES_FROM else _images(x, spread)


def coefficients(terms: int) -> Tensor:
    """c_n for n = 1..terms: the cosine coefficients of the alternating wave s."""
    n = torch.arange(1, terms + 1, dtype=torch.float64)
    edges = torch.sin(n * math.pi * torch.arange(CELLS + 1, dtype=torch.float64)[:, None] / CELLS)
    return 2 / (n * math.pi) * (_signs(CELLS)[:, None] * edges.diff(dim=0)).sum(0)


def _series(x: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    terms = math.ceil(math.sqrt(2 * NEGLIGIBLE) * WIDTH / (math.pi * spread))
    rate = torch.arange(1, terms + 1, dtype=torch.float64) * math.pi / WIDTH
    amplitude = coefficients(terms) * torch.exp(-0.5 * (rate * spread) ** 2)
    phase = (x[..., None] - LOW) * rate
    return phase.cos() @ amplitude, -(phase.sin() @ (amplitude * rate))


def _images(x: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Cells of the box and of its mirror images to either side; farther ones are beyond 6 S t."""
    signs = _signs(CELLS)
    signs = torch.cat([signs.flip(0), signs, signs.flip(0)])
    edges = LOW - WIDTH + WIDTH / CELLS * torch.arange(3 * CELLS + 1, dtype=torch.float64)
    z = (x[..., None] - edges) / spread
    normal = torch.exp(-0.5 * z.square()) / (spread * math.sqrt(2 * math.pi))
    w = -(torch.special.ndtr(z).diff(dim=-1) @ signs)
    return w, -(normal.diff(dim=-1) @ signs)


def _signs(cells: int) -> Tensor:
    return torch.tensor([(-1.0) ** j for j in range(cells)], dtype=torch.float64)
