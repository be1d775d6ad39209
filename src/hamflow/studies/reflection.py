"""Reflection HGF from the uniform law in its box (first frame) to the checkerboard (last frame): above, points carried
backwards by the exact velocity of free flight between elastic walls; below, the exact density at the same time. Nothing here
was trained.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import to_builtins
from torch import Tensor

from hamflow import flows
from hamflow.draws import unit_noise
from hamflow.laws.reflected_checkerboard import HIGH, LOW, ReflectedCheckerboard, wave
from hamflow.registry import Count, Options, convert
from hamflow.report import style
from hamflow.report.figures.samples import cloud
from hamflow.sampling import solve
from hamflow.studies import base

FRAMES = (3.0, 2.25, 1.5, 0.75, 0.0)  # the paper's
STEPS = 8  # of rk4 between two frames; from the last but one to 0 the velocity changes faster
LAST_STEPS = 80
SMALLEST = 1e-3  # S t at which the backward integration ends: a thousandth of a cell
GRID = 160  # pixels along a side of the density


class Spec(Options, frozen=True):
    """points: of each frame."""

    points: Count = 4000


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The points of each frame, and the exact density: (1 + w(x_1) w(x_2)) / 16 with the wave w on an axis."""
    spec = convert(Spec, values, "studies.reflection")
    side = torch.linspace(LOW, HIGH, GRID + 1, dtype=torch.float64)
    middle = (side[1:] + side[:-1]) / 2
    return {
        "kind": "reflection",
        "spec": to_builtins(spec),
        "times": list(FRAMES),
        "points": [base.rounded(frame, 5) for frame in generate(spec.points)],
        "waves": [base.rounded(wave(middle, max(t, SMALLEST))[0]) for t in FRAMES],
    }


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


def draw(result: dict[str, Any], output: Path) -> None:
    """Above, points carried backwards by the exact velocity, t = 3 to 0; below, the exact density."""
    with style.drawing(output, 11.0, 4.7) as figure:
        panels = figure.subplots(2, len(result["times"]), sharex=True, sharey=True)
        for (above, below), t, points, wave in zip(panels.T, *(result[k] for k in ("times", "points", "waves")), strict=True):
            cloud(above, np.array(points), style.KNOWN["reflection"][0], size=1.2)
            above.set_title(f"t = {t:.2f}")
            density = (1 + np.multiply.outer(wave, wave)) / (HIGH - LOW) ** 2
            picture = below.imshow(density, origin="lower", extent=(LOW, HIGH, LOW, HIGH), cmap="Greens", vmin=0, vmax=1 / 8)
            below.grid(False)
            below.set_xlabel("$x_1$ (data units)")
        count = len(result["points"][0])
        panels[0, 0].set(ylabel=f"{count} points, backwards\n$x_2$ (data units)", xlim=(LOW, HIGH), ylim=(LOW, HIGH))
        panels[0, 0].set(xticks=[-2, -1, 0, 1, 2], yticks=[-2, -1, 0, 1, 2])
        panels[1, 0].set_ylabel("exact density\n$x_2$ (data units)")
        bar = figure.colorbar(picture, ax=panels[1], pad=0.01, aspect=26, ticks=[0, 1 / 16, 1 / 8])
        bar.ax.set_yticklabels(["0", "1/16", "1/8"])
        bar.set_label("density (1 / data units²)")
        figure.suptitle(
            "Reflection HGF from uniform (t = 3) to the checkerboard (t = 0), box [−2, 2]², speed S = 1, exact velocity",
            fontsize=10,
        )
