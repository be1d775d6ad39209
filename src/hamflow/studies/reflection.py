"""Free flight between elastic walls run backwards, from uniform to the checkerboard, with the exact velocity."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow import flows
from hamflow.draws import unit_noise
from hamflow.laws.reflected_checkerboard import HIGH, LOW, ReflectedCheckerboard
from hamflow.report import style
from hamflow.report.points import cloud
from hamflow.sampling import solve

FRAMES = (3.0, 2.25, 1.5, 0.75, 0.0)  # the paper's
POINTS = 4000
STEPS = 8  # of rk4 between two frames; from the last but one to 0 the velocity changes faster
LAST_STEPS = 80
SMALLEST = 1e-3  # S t at which the backward integration ends: a thousandth of a cell


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
