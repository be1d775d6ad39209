"""The 4 x 4 checkerboard: uniform on the eight black cells of the box [-2, 2]^2."""

import math

import numpy as np
import torch

HALF = 2  # the box is [-HALF, HALF]^2, its cells are unit squares
GRID = 2**22  # steps of a cell; their middles are exact in float32: rounding moves no point across an edge


class CheckerboardDensity:
    """Uniform where floor(x) + floor(y) is even, inside [-2, 2]^2: density 1/8, entropy ln 8."""

    bounded = True
    log_area = math.log(2 * HALF**2)  # half of the (2 HALF)^2 unit cells

    def log_prob(self, x) -> torch.Tensor:
        """-ln 8 on the black cells, -inf elsewhere, [N, 2] -> [N]."""
        inside = self.support(x)
        return torch.full(inside.shape, -self.log_area, dtype=torch.float64).masked_fill(~inside, -math.inf)

    def score(self, x) -> torch.Tensor:
        """Zero on the black cells, nan elsewhere, [N, 2] -> [N, 2]."""
        x = torch.as_tensor(x, dtype=torch.float64)
        return torch.zeros_like(x).masked_fill(~self.support(x)[:, None], math.nan)

    def support(self, x) -> torch.Tensor:
        """Black cells, the outer edge of the box included, [N, 2] -> bool [N]."""
        x = torch.as_tensor(x, dtype=torch.float64)
        cell = x.floor().clamp(-HALF, HALF - 1)  # the wall x = 2 belongs to the last cell
        return (x.abs() <= HALF).all(1) & (cell.sum(1) % 2 == 0)

    def sample(self, n: int, rng: np.random.Generator) -> torch.Tensor:
        """n points, [n, 2], float64."""
        x_cell, half_row = rng.integers(-HALF, HALF, n), rng.integers(0, HALF, n)
        y_cell = 2 * half_row - HALF + x_cell % 2  # of each column, every second cell is black
        offset = (rng.integers(0, GRID, (n, 2)) + 0.5) / GRID
        return torch.from_numpy(np.stack([x_cell, y_cell], 1) + offset)
