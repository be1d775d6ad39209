"""Free flight between elastic walls run backwards, from uniform to the checkerboard, with the exact velocity.

The 4 x 4 checkerboard on [-2, 2]^2 has density p(x, y) = (1 + s(x) s(y)) / 16, where s = +-1 alternates from
cell to cell. Under flight with v_0 ~ N(0, S^2 I) and reflection each coordinate obeys the heat equation with
reflecting walls for a "time" (S t)^2 / 2 (SPEC 2.5), which keeps products: with w(x, t) the solution from s
    p_t(x, y) = (1 + w(x, t) w(y, t)) / 16,       V = -S^2 t grad log p_t.
With L = 4 and cells [e_j, e_(j+1)], e_j = -2 + j, of signs s_j,
    w = sum_n c_n exp(-(n pi S t / L)^2 / 2) cos(n pi (x + 2) / L),
    c_n = (2 / (n pi)) sum_j s_j [sin(n pi (j + 1) / 4) - sin(n pi j / 4)]       (Neumann series),
    w = sum_j s_j [Phi((x - e_j) / S t) - Phi((x - e_(j+1)) / S t)]              (images: all mirrored cells).
The series converges fast for large S t, the images for small; they agree to rounding in between.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow import flows
from hamflow.report import style
from hamflow.report.points import cloud
from hamflow.sampling import solve, unit_noise

LOW, HIGH, CELLS = -2.0, 2.0, 4
WIDTH = HIGH - LOW
SERIES_FROM = 0.3 * WIDTH / CELLS  # S t above which the series is used
UNRESOLVED = 1e-12  # of 1 + w w', whose rounding is 1e-16
NEGLIGIBLE = 45.0  # terms beyond exp(-45) are left out
FRAMES = (3.0, 2.25, 1.5, 0.75, 0.0)  # the paper's
POINTS = 4000
STEPS = 8  # of rk4 between two frames; from the last but one to 0 the velocity changes faster
LAST_STEPS = 80
SMALLEST = 1e-3  # S t at which the backward integration ends: a thousandth of a cell


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


def generate(n: int, times: tuple[float, ...] = FRAMES, speed: float = 1.0) -> list[Tensor]:
    """n points that follow dx/dt = V backwards from uniform, at decreasing times, each [n, 2] in the box.

    The last time may be 0: the integration ends at S t = 1e-3, where the points are a thousandth of a cell
    from where they belong. Steps shrink geometrically towards it, as the velocity's length scale S t does.
    """
    law = ReflectedCheckerboard(speed)
    flow = flows.build("reflection", low=LOW, high=HIGH, speed=speed, horizon=times[0])
    x = flow.terminal(unit_noise(range(n), (2,)))
    frames, velocity = [x], flow.unfold(law.velocity)
    for start, end in pairwise(times):
        steps = STEPS if end > 0 else LAST_STEPS
        grid = torch.from_numpy(np.geomspace(start, max(end, SMALLEST / speed), steps + 1))
        x = flow.settle(solve("rk4", velocity, x, grid))
        frames.append(x)
    return frames


def plot_reflection(output: str | Path) -> None:
    """Above, points carried backwards by the exact velocity, t = 3 to 0; below, the exact density.

    Args:
        output: the .png; a .pdf beside it.
    """
    frames = generate(POINTS)
    law = ReflectedCheckerboard()
    with style.drawing(output, 11.0, 4.7) as figure:
        above, below = figure.subplots(2, len(FRAMES), sharex=True, sharey=True)
        for column, (t, points) in enumerate(zip(FRAMES, frames, strict=True)):
            cloud(above[column], points.numpy(), style.colour("reflection"), size=1.2)
            picture = _draw_density(below[column], law, t)
            above[column].set_title(f"t = {t:.2f}")
            below[column].set_xlabel("$x_1$ (data units)")
        above[0].set(ylabel=f"{POINTS} points, backwards\n$x_2$ (data units)", xlim=(LOW, HIGH), ylim=(LOW, HIGH))
        above[0].set(xticks=[-2, -1, 0, 1, 2], yticks=[-2, -1, 0, 1, 2])
        below[0].set_ylabel("exact density\n$x_2$ (data units)")
        bar = figure.colorbar(picture, ax=below, pad=0.01, aspect=26, ticks=[0, 1 / 16, 1 / 8])
        bar.ax.set_yticklabels(["0", "1/16", "1/8"])
        bar.set_label("density (1 / data units²)")
        figure.suptitle(
            "Reflection HGF from uniform (t = 3) to the checkerboard (t = 0), box [−2, 2]², speed S = 1, exact velocity",
            fontsize=10,
        )


def _draw_density(axes: Any, law: ReflectedCheckerboard, t: float) -> Any:
    side = torch.linspace(LOW, HIGH, 161, dtype=torch.float64)
    side = (side[1:] + side[:-1]) / 2
    grid = torch.cartesian_prod(side, side)
    density = law.density(grid, max(t, SMALLEST)).reshape(len(side), len(side))
    axes.grid(False)
    return axes.imshow(density.T.numpy(), origin="lower", extent=(LOW, HIGH, LOW, HIGH), cmap="Greens", vmin=0, vmax=1 / 8)
