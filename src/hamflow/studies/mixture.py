"""Hamiltonian score matching on a mixture: density, learned score field, learned velocity predictor."""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import field, to_builtins

from hamflow.methods.hsm import Form, HamiltonianObjective, HamiltonianScoreMatching
from hamflow.registry import Count, Fraction, NotNegative, Positive, convert, some
from hamflow.report import style
from hamflow.studies import base
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

DENSITY_GRID = 81  # of the picture of the density
REPORTS = 20  # points of the learning curve
MARGIN = 2.5  # of the picture beyond the outermost means, in their standard deviations

NEGLIGIBLE = 1e-3  # of the largest density: where there are no data a score is not learned, and not drawn


class Matching(HamiltonianScoreMatching, kw_only=True, frozen=True):
    """The target of the residual form hardly moves, so that one critic update for each of the score is enough."""

    form: Form = "residual"
    critic_steps: Count = 1
    critic: base.Network = field(default_factory=lambda: {"kind": "small", "width": 128, "depth": 3})


class MatchingTraining(Training, kw_only=True, frozen=True):
    """How the two players are trained."""

    train_kimg: Positive = 1024.0
    learning_rate: Positive = 3e-3
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    ema_halflife_kimg: NotNegative = 18.0
    ema_rampup: Positive = 0.07


class Spec(base.Common, kw_only=True, frozen=True):
    """Besides the common keys: hamiltonian: what differs from `Matching`; training: what differs from
    `MatchingTraining`; grid: arrows along a side."""

    hamiltonian: Annotated[dict[str, Any], some(Matching)] = field(default_factory=dict)
    training: Annotated[dict[str, Any], some(MatchingTraining)] = field(default_factory=dict)
    grid: Count = 25

    def method(self) -> Matching:
        """The method with all its options."""
        return convert(Matching, self.hamiltonian, "hamiltonian")

    def plan(self) -> MatchingTraining:
        """The training with all its settings."""
        return convert(MatchingTraining, self.training, "training")


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train, and tabulate the fields on a square grid."""
    spec = convert(Spec, values, "studies.mixture")
    law, method, plan = spec.law(), spec.method(), spec.plan()
    objective = method.objective(spec.facts(), {}, spec.seed)
    rows = Samples(base.samples_of_training(law, plan, spec.seed).float())
    state, began, curve = State(objective, plan), time.process_time(), []
    for _ in fit(objective, rows, plan, spec.seed, state):
        if state.step * REPORTS // plan.steps > (state.step - 1) * REPORTS // plan.steps:
            error = base.score_error(law, state.averaged.force, spec.evaluation, spec.seed)[0]
            curve.append({"step": state.step, "score_error": error})
    seconds = time.process_time() - began
    error, standard_error = base.score_error(law, state.averaged.force, spec.evaluation, spec.seed)
    return {
        "kind": "mixture",
        "spec": spec.as_dict(),
        "settings": {"steps": plan.steps, "hamiltonian": to_builtins(method), "training": to_builtins(plan)},
        "score_error": error,
        "score_error_standard_error": standard_error,
        "fisher_information": base.fisher_information(law, spec.evaluation, spec.seed),
        "n": spec.evaluation,
        "curve": curve,
        "fields": fields_on_grid(spec, state.averaged),
        "training": {"cpu_seconds": seconds},
    }


@torch.no_grad()
def fields_on_grid(spec: Spec, averaged: HamiltonianObjective) -> dict[str, Any]:
    """{axis [g], density [g, g], score, exact, predictor [g, g, 2], time}: row i is y = axis[i], column j x = axis[j].

    The predictor is drawn at the horizon, where an error of the score would have moved it most.
    """
    law = spec.law()
    axis, points = _square(law, spec.grid)
    fine, dense = _square(law, DENSITY_GRID)
    force, horizon = averaged.force, averaged.method.horizon
    like = next(force.parameters())
    predicted = averaged.critic(points.to(like), torch.full((len(points),), horizon).to(like), force)
    shape = (spec.grid, spec.grid, 2)
    return {
        "axis": base.rounded(axis),
        "density": base.rounded(law.log_prob(points).exp().reshape(shape[:2])),
        "fine_axis": base.rounded(fine),
        "fine_density": base.rounded(law.log_prob(dense).exp().reshape(DENSITY_GRID, DENSITY_GRID), 4),
        "exact": base.rounded(law.score(points).reshape(shape)),
        "score": base.rounded(base.in_double(force)(points).reshape(shape)),
        "predictor": base.rounded(predicted.double().reshape(shape)),
        "time": horizon,
        "predictor_rms": _rms_under_data(averaged, base.fresh_samples(law, spec.evaluation, spec.seed)),
    }


def _square(law: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The axis of a square around the mixture, [count], and its grid points row by row, [count^2, 2]."""
    reach = float((law.means.abs() + MARGIN * law.sds).max())
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return axis, torch.stack([x, y], dim=2).reshape(-1, 2)


def _rms_under_data(averaged: HamiltonianObjective, x: torch.Tensor) -> float:
    """sqrt(E|V(x, T)|^2 / D) over the data; 1 would be the size of the velocities themselves."""
    x = x.to(next(averaged.force.parameters()))
    t = torch.full((len(x),), averaged.method.horizon).to(x)
    return float(averaged.critic(x, t, averaged.force).square().mean().sqrt())


def draw(result: dict[str, Any], output: Path) -> None:
    """Density, learned score, learned velocity predictor: the last two with arrows of one scale each, shown by a key."""
    fields = {key: np.asarray(value) for key, value in result["fields"].items()}
    axis, fine, density = fields["axis"], fields["fine_axis"], fields["fine_density"]
    there = fields["density"] > NEGLIGIBLE * density.max()
    with style.drawing(output, 10.6, 4.0) as figure:
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        filled = panels[0].contourf(fine, fine, density, levels=14, cmap="Blues")
        panels[0].set_title("density $p$")
        figure.colorbar(filled, ax=panels[0], shrink=0.75, pad=0.02)
        error, noise = result["score_error"], result["score_error_standard_error"]
        _arrows(panels[1], axis, fields["score"], there, key=3.0, colour=style.START)
        panels[1].set_title(
            f"learned score\n$E|s - \\nabla\\log p|^2$ = {error:.4f} $\\pm$ {noise:.4f}"
            f" ({100 * error / result['fisher_information']:.1f} % of Fisher)"
        )
        _arrows(panels[2], axis, fields["predictor"], there, key=1.0, colour=style.HAMILTONIAN)
        panels[2].set_title(
            f"learned velocity predictor at $t = T = {result['fields']['time']:g}$\n"
            f"rms {result['fields']['predictor_rms']:.3f} (velocities: 1)"
        )
        for axes in panels[1:]:
            axes.contour(fine, fine, density, levels=5, colors="#BBBBBB", linewidths=0.7)
        for axes in panels:
            axes.set_aspect("equal")
            axes.grid(False)
            axes.set_xlabel("$x_1$ (data units)")
        panels[0].set_ylabel("$x_2$ (data units)")
        figure.suptitle(
            f"Hamiltonian score matching, {result['settings']['steps']} updates; error over n = {result['n']}",
            fontsize=10,
        )


def _arrows(axes: Any, axis: np.ndarray, field: np.ndarray, there: np.ndarray, key: float, colour: str) -> None:
    x, y = np.meshgrid(axis, axis)
    spacing = axis[1] - axis[0]
    scale = key / (1.5 * spacing)  # an arrow of the key's length spans one and a half cells of the grid
    arrows = axes.quiver(
        x[there], y[there], *field[there].T, color=colour, angles="xy", scale_units="xy", scale=scale, width=0.005
    )
    axes.quiverkey(arrows, 0.88, 0.03, key, f"{key:g}", labelpos="E", fontproperties={"size": 8})
