"""The law of (x_t, v_t) on the way from data (blue, t = 0) to noise (red, t = T) under three flows, with trajectories, for a
mixture of two Gaussians on the line whose velocities are known in closed form: nothing here was trained. Diffusion and flow
matching shear and distort the law; oscillation only turns it.

The paper's Fig. 2. On the line dx/dt = V carries each quantile of the law of x_t to the same quantile of the data [theory 4.2].
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import to_builtins

from hamflow import draws, flows
from hamflow.laws.mixtures import GaussianMixture
from hamflow.registry import Count, Options, Positive, convert
from hamflow.report import style
from hamflow.sampling import solve
from hamflow.studies import base

MIXTURE = GaussianMixture([0.4, 0.6], [-2.0, 2.0], [1.0, 1.0])  # the caption's law
FLOWS = {  # the caption's three flows
    "Diffusion": ("diffusion", {"horizon": 3.0}),
    "Flow matching (CondOT)": ("flow_matching", {}),
    "Oscillation HGF, α = 1": ("oscillation", {"alpha": 1.0}),
}
TAILS = 3.0  # horizon of the heavy-tailed flight, that of diffusion
SOON = 1e-6  # last time / T where the velocity jumps at t = 0, as it does for one degree
CLOUDS = (0.0, 0.5, 1.0)  # t / T at which the law is shown
REACH = 7.0  # of the densities shown, data units
DENSITY_GRID = 141  # positions at which they are computed
LINE = {"linewidths": 1.4, "zorder": 4}
DOT = {"markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 5}


class Spec(Options, frozen=True):
    """particles: of each cloud; trajectories: lines of each panel; times: along a line, a step of rk4 between two (61 are
    exact to a thousandth of the data's spread); seed: of the particles; degrees: null, or D of a fourth panel, free flight with
    Student-t velocities of D degrees (1: PFGM)."""

    particles: Count = 900
    trajectories: Count = 12
    times: Count = 61
    seed: int = 0
    degrees: Positive | None = None


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Of each flow: clouds in phase space, trajectories of particles, densities of x_t, and solutions of dx/dt = V."""
    spec = convert(Spec, values, "studies.phase_space")
    shown = [{"title": title, **_shown(spec, flows.build(name, **o))} for title, (name, o) in FLOWS.items()]
    if spec.degrees is not None:
        title = "PFGM" if spec.degrees == 1 else f"PFGM++, D = {spec.degrees:g}"
        heavy = _shown(spec, flows.build("pfgm", degrees=spec.degrees, horizon=TAILS))
        shown.append({"title": title, **heavy, "limits": [-REACH, REACH]})  # a few particles fly out of the picture
    plain = {key: value for key, value in to_builtins(spec).items() if value is not None}
    return {"kind": "phase_space", "spec": plain, "flows": shown}


def _shown(spec: Spec, flow: Any) -> dict[str, Any]:
    rng = draws.generator(spec.seed, "phase space")
    x0 = MIXTURE.sample(spec.particles, rng)
    v0 = flow.couple(x0, flow.noise(Drawn(rng, spec.particles), (1,)))
    times = torch.linspace(0, flow.horizon, spec.times, dtype=torch.float64)
    backwards = times.flip(0)
    if not flow.has_variance:
        backwards[-1] = SOON * flow.horizon
    some = slice(spec.trajectories)
    grid = torch.linspace(-REACH, REACH, DENSITY_GRID, dtype=torch.float64)[:, None]
    levels = (torch.arange(spec.trajectories, dtype=torch.float64) + 0.5) / spec.trajectories
    ends = MIXTURE.carried_by(flow, flow.horizon).quantile(levels)[:, None]
    return {
        "horizon": flow.horizon,
        "clouds": [_plain(flow.push(x0, v0, fraction * flow.horizon)) for fraction in CLOUDS],  # (x, v) each
        "trajectories": [_plain(flow.push(x0[some], v0[some], t)) for t in times],
        "densities": [base.rounded(MIXTURE.carried_by(flow, float(t)).log_prob(grid).exp(), 4) for t in times],
        "solutions": base.rounded(backward_paths(flow, MIXTURE, ends, backwards)[..., 0], 5),  # from T to 0
    }


class Drawn:
    """Random numbers of n particles, one after the other from one generator, whatever their name."""

    def __init__(self, rng: np.random.Generator, count: int):
        self.rng, self.count = rng, count

    def normal(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self.rng.standard_normal((self.count, *shape)))

    def uniform(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.rng.random(self.count))

    def chi_square(self, name: str, degrees: float) -> torch.Tensor:
        return torch.from_numpy(self.rng.chisquare(degrees, self.count))


def backward_paths(flow: Any, law: GaussianMixture, x_end: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Solutions of dx/dt = V(x, t) at decreasing times, from x_end [N, D] at times[0]: [len(times), N, D]."""
    velocity, path = law.velocity_under(flow), [x_end.double()]
    for interval in pairwise(times):
        path.append(solve("rk4", velocity, path[-1], torch.stack(interval)))
    return torch.stack(path)


def _plain(state: tuple[torch.Tensor, torch.Tensor]) -> list:
    return [base.rounded(part[:, 0], 5) for part in state]


def draw(result: dict[str, Any], output: Path) -> None:
    """Above, the law of (x, v) from t = 0 (blue) to t = T (red) with particles' trajectories; below, the
    density of x_t with solutions of dx/dt = V run backwards from equally likely quantiles of x_T."""
    with style.drawing(output, 3.4 * len(result["flows"]), 6.6) as figure:
        panels = figure.subplots(2, len(result["flows"]), height_ratios=[1.2, 1])
        for (above, below), shown in zip(panels.T, result["flows"], strict=True):
            _draw_phase_space(above, shown)
            _draw_generation(below, shown)
            above.set_title(f"{shown['title']}, T = {_readable(shown['horizon'])}")
        bar = figure.colorbar(_time_scale(), ax=panels, ticks=[0, 0.5, 1], pad=0.01, aspect=45)
        bar.ax.set_yticklabels(["t = 0\n(data)", "t = T/2", "t = T"])
        figure.suptitle(
            "From 0.4 N(−2, 1) + 0.6 N(2, 1). Above: particles in phase space. Below: density of $x_t$\n"
            "(grey, relative to its highest at t) and solutions of dx/dt = V(x, t), V exact, run from T to 0",
            fontsize=9.5,
        )


def _draw_phase_space(axes: Any, shown: dict[str, Any]) -> None:
    for fraction, (x, v) in zip(CLOUDS, shown["clouds"], strict=True):
        look = {"color": style.time_colour(fraction), "alpha": 0.3, "linewidths": 0, "zorder": 2}
        axes.scatter(x, v, s=5, rasterized=True, **look)
    x, v = np.array(shown["trajectories"]).transpose(1, 2, 0)  # [particles, times] each
    for xs, vs in zip(x, v, strict=True):
        _line_in_time(axes, xs, vs, np.linspace(0, 1, len(xs)))
        for end in (0, -1):
            axes.plot(xs[end], vs[end], "o", color=style.time_colour(-end), **DOT)
    axes.set(xlabel="position x (data units)", ylabel="velocity v (data units / time)")
    if limits := shown.get("limits"):
        axes.set(xlim=limits, ylim=limits)


def _draw_generation(axes: Any, shown: dict[str, Any]) -> None:
    density, horizon = np.array(shown["densities"]), shown["horizon"]
    axes.imshow(
        (density / density.max(1, keepdims=True)).T,
        origin="lower",
        aspect="auto",
        extent=(0, horizon, -REACH, REACH),
        cmap="Greys",
        vmin=0,
        vmax=2.2,
        interpolation="bilinear",
    )
    fractions = np.linspace(1, 0, len(density))
    for path in np.array(shown["solutions"]).T:
        _line_in_time(axes, fractions * horizon, path, fractions)
    axes.grid(False)
    axes.set(xlabel="time t", ylabel="position x (data units)", xlim=(0, horizon), ylim=(-REACH, REACH))


def _line_in_time(axes: Any, x: np.ndarray, y: np.ndarray, fractions: np.ndarray) -> None:
    """A path whose colour says the time t / T, on a white edge that lifts it from what lies below."""
    from matplotlib.collections import LineCollection

    points = np.stack([x, y], 1)
    pieces = np.stack([points[:-1], points[1:]], 1)
    axes.plot(x, y, color="white", linewidth=2.6, zorder=3)
    middle = (fractions[:-1] + fractions[1:]) / 2
    axes.add_collection(LineCollection(list(pieces), array=middle, cmap=style.time_map(), clim=(0, 1), **LINE))


def _time_scale() -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(cmap=style.time_map())


def _readable(horizon: float) -> str:
    return "π/2" if abs(horizon - np.pi / 2) < 1e-12 else f"{horizon:g}"
