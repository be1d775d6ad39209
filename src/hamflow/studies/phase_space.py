"""How three flows move a mixture on the line through phase space: the paper's Fig. 2, with exact velocities.

With x_t = a x_0 + b n and v_t = a' x_0 + b' n, where n ~ N(0, 1), (a, b, a', b') are the flow's coefficients
and x_0 is of component k of sum_k w_k N(m_k, s_k^2), the pair (x_t, v_t) is Gaussian, so that
    E[v_t | x_t = x, k] = a' m_k + (a a' s_k^2 + b b') / (a^2 s_k^2 + b^2) (x - a m_k),
    V(x, t) = E[v_t | x_t = x] = sum_k P(k | x_t = x) E[v_t | x_t = x, k]         (`GaussianMixture.regress`).
On the line dx/dt = V carries each quantile of the law of x_t to the same quantile of the data [SPEC 2.1].
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hamflow import draws, flows
from hamflow.flows import LinearFlow
from hamflow.laws.mixtures import GaussianMixture
from hamflow.report import style
from hamflow.sampling import solve

MIXTURE = GaussianMixture([0.4, 0.6], [-2.0, 2.0], [1.0, 1.0])  # the caption's law
FLOWS = {  # the caption's three flows
    "Diffusion": ("diffusion", {"horizon": 3.0}),
    "Flow matching (CondOT)": ("flow_matching", {}),
    "Oscillation HGF, α = 1": ("oscillation", {"alpha": 1.0}),
}
CLOUDS = (0.0, 0.5, 1.0)  # t / T at which the law is shown
PARTICLES = 900
TRAJECTORIES = 12
FRAMES = 61  # times along a line, a step of rk4 between two: exact to a thousandth of the line's width
REACH = 7.0  # of the densities shown, data units
LINE = {"linewidths": 1.4, "zorder": 4}
DOT = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 5}


def backward_paths(flow: LinearFlow, law: GaussianMixture, x_end: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Solutions of dx/dt = V(x, t) at decreasing times, from x_end [N, D] at times[0]: [len(times), N, D]."""
    velocity, path = law.velocity_under(flow), [x_end.double()]
    for interval in pairwise(times):
        path.append(solve("rk4", velocity, path[-1], torch.stack(interval)))
    return torch.stack(path)


def plot_phase_space(output: str | Path) -> None:
    """Above, the law of (x, v) from t = 0 (blue) to t = T (red) with particles' trajectories; below, the
    density of x_t with solutions of dx/dt = V run backwards from equally likely quantiles of x_T.

    Args:
        output: the .png; a .pdf beside it.
    """
    with style.drawing(output, 10.2, 6.6) as figure:
        panels = figure.subplots(2, 3, height_ratios=[1.2, 1])
        for column, (title, (name, options)) in enumerate(FLOWS.items()):
            flow: Any = flows.build(name, **options)  # a LinearFlow
            _draw_phase_space(panels[0, column], flow)
            _draw_generation(panels[1, column], flow)
            panels[0, column].set_title(f"{title}, T = {_readable(flow.horizon)}")
        bar = figure.colorbar(_time_scale(), ax=panels, ticks=[0, 0.5, 1], pad=0.01, aspect=45)
        bar.ax.set_yticklabels(["t = 0\n(data)", "t = T/2", "t = T"])
        figure.suptitle(
            "From 0.4 N(−2, 1) + 0.6 N(2, 1). Above: particles in phase space. Below: density of $x_t$\n"
            "(grey, relative to its highest at t) and solutions of dx/dt = V(x, t), V exact, run from T to 0",
            fontsize=9.5,
        )


def _draw_phase_space(axes: Any, flow: LinearFlow) -> None:
    rng = draws.generator(0, "phase space")
    x0 = MIXTURE.sample(PARTICLES, rng)
    v0 = flow.couple(x0, torch.from_numpy(rng.standard_normal((PARTICLES, 1))))
    for fraction in CLOUDS:
        x_t, v_t = flow.push(x0, v0, fraction * flow.horizon)
        axes.scatter(
            x_t[:, 0],
            v_t[:, 0],
            s=5,
            color=style.time_colour(fraction),
            alpha=0.3,
            linewidths=0,
            zorder=2,
            rasterized=True,
        )
    times = torch.linspace(0, flow.horizon, FRAMES, dtype=torch.float64)
    path = [flow.push(x0[:TRAJECTORIES], v0[:TRAJECTORIES], t) for t in times]
    x, v = (torch.stack(part)[..., 0].numpy() for part in zip(*path, strict=True))
    for i in range(TRAJECTORIES):
        _line_in_time(axes, x[:, i], v[:, i], times)
        axes.plot(x[0, i], v[0, i], "o", color=style.time_colour(0), **DOT)
        axes.plot(x[-1, i], v[-1, i], "o", color=style.time_colour(1), **DOT)
    axes.set(xlabel="position x (data units)", ylabel="velocity v (data units / time)")


def _draw_generation(axes: Any, flow: LinearFlow) -> None:
    times = torch.linspace(flow.horizon, 0, FRAMES, dtype=torch.float64)
    levels = (torch.arange(TRAJECTORIES, dtype=torch.float64) + 0.5) / TRAJECTORIES
    x_end = MIXTURE.carried_by(flow, flow.horizon).quantile(levels)[:, None]
    paths = backward_paths(flow, MIXTURE, x_end, times)[..., 0]
    grid = torch.linspace(-REACH, REACH, 281, dtype=torch.float64)
    density = torch.stack([MIXTURE.carried_by(flow, float(t)).log_prob(grid[:, None]).exp() for t in times.flip(0)])
    density = density / density.max(1, keepdim=True).values
    axes.imshow(
        density.T.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, flow.horizon, -REACH, REACH),
        cmap="Greys",
        vmin=0,
        vmax=2.2,
        interpolation="bilinear",
    )
    for i in range(TRAJECTORIES):
        _line_in_time(axes, times.numpy(), paths[:, i].numpy(), times)
    axes.grid(False)
    axes.set(xlabel="time t", ylabel="position x (data units)", xlim=(0, flow.horizon), ylim=(-REACH, REACH))


def _line_in_time(axes: Any, x: np.ndarray, y: np.ndarray, times: torch.Tensor) -> None:
    """A path whose colour says the time, on a white edge that lifts it from what lies below."""
    from matplotlib.collections import LineCollection

    points = np.stack([x, y], 1)
    pieces = np.stack([points[:-1], points[1:]], 1)
    axes.plot(x, y, color="white", linewidth=2.6, zorder=3)
    fractions = ((times[:-1] + times[1:]) / (2 * times.max())).numpy()
    axes.add_collection(LineCollection(list(pieces), array=fractions, cmap=style.time_map(), clim=(0, 1), **LINE))


def _time_scale() -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(cmap=style.time_map())


def _readable(horizon: float) -> str:
    return "π/2" if abs(horizon - np.pi / 2) < 1e-12 else f"{horizon:g}"
