"""Hamiltonian score matching on a mixture: density, learned score field, learned velocity predictor."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from hamflow.score.fields import VelocityPredictor, build_network
from hamflow.score.settings import HamiltonianSettings
from hamflow.score.training import HamiltonianScoreMatching
from hamflow.studies import base

DENSITY_GRID = 81  # of the picture of the density
REPORTS = 20  # points of the learning curve
MARGIN = 2.5  # of the picture beyond the outermost means, in their standard deviations


@dataclass(frozen=True)
class Spec(base.Common):
    """Besides the common keys: critic: network of the velocity predictor; form: see `VelocityPredictor`;
    hamiltonian: settings of `HamiltonianSettings` that differ from its defaults; grid: arrows along a
        side."""

    critic: dict[str, Any] = field(default_factory=lambda: {"kind": "small", "width": 128, "depth": 3})
    form: str = "residual"  # its target hardly moves, so that one critic update for each of the score is enough
    hamiltonian: dict[str, Any] = field(default_factory=lambda: {"steps": 4000, "critic_steps": 1, "learning_rate": 3e-3})
    grid: int = 25


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train, and tabulate the fields on a square grid."""
    spec = base.read(Spec, values)
    training = learner(spec, spec.seed)
    began, curve = time.process_time(), []

    def report(line: dict[str, Any]) -> None:
        if line["step"] * REPORTS // training.settings.steps > (line["step"] - 1) * REPORTS // training.settings.steps:
            error = base.score_error(spec.law(), training.average["force"], spec.evaluation, spec.seed)[0]
            curve.append({"step": line["step"], "score_error": error, "gain": line["gain"]})

    training.train(report=report)
    seconds = time.process_time() - began
    error, standard_error = base.score_error(spec.law(), training.average["force"], spec.evaluation, spec.seed)
    return {
        "kind": "mixture",
        "spec": spec.as_dict(),
        "settings": training.settings.as_dict(),
        "score_error": error,
        "score_error_standard_error": standard_error,
        "fisher_information": base.fisher_information(spec.law(), spec.evaluation, spec.seed),
        "n": spec.evaluation,
        "curve": curve,
        "fields": fields_on_grid(spec, training),
        "training": {"cpu_seconds": seconds},
    }


def learner(spec: Spec, seed: int) -> HamiltonianScoreMatching:
    """The min-max of a specification, untrained; networks and draws are functions of the seed."""
    law, settings = spec.law(), HamiltonianSettings.from_mapping(spec.hamiltonian)
    network = build_network(spec.critic, (law.dimension,), 2 * seed + 1)
    critic = VelocityPredictor(network, spec.form, settings.horizon, base.spread_of(law))
    return HamiltonianScoreMatching(spec.score_field(2 * seed), critic, law.sample, settings, seed)


@torch.no_grad()
def fields_on_grid(spec: Spec, training: HamiltonianScoreMatching) -> dict[str, Any]:
    """{axis [g], density [g, g], score, exact, predictor [g, g, 2], time}: row i is y = axis[i], column j x =
    axis[j].

    The predictor is drawn at the horizon, where an error of the score would have moved it most.
    """
    law = spec.law()
    axis, points = _square(law, spec.grid)
    fine, dense = _square(law, DENSITY_GRID)
    like, horizon = next(training.force.parameters()), training.settings.horizon
    force = training.average["force"]
    predicted = training.average["critic"](points.to(like), torch.full((len(points),), horizon).to(like), force)
    shape = (spec.grid, spec.grid, 2)
    return {
        "axis": base.plain(axis),
        "density": base.plain(law.log_prob(points).exp().reshape(shape[:2])),
        "fine_axis": base.plain(fine),
        "fine_density": base.plain(law.log_prob(dense).exp().reshape(DENSITY_GRID, DENSITY_GRID), 4),
        "exact": base.plain(law.score(points).reshape(shape)),
        "score": base.plain(base.in_double(force)(points).reshape(shape)),
        "predictor": base.plain(predicted.double().reshape(shape)),
        "time": horizon,
        "predictor_rms": _rms_under_data(training, base.fresh_samples(law, spec.evaluation, spec.seed)),
    }


def _square(law: Any, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The axis of a square around the mixture, [count], and its grid points row by row, [count^2, 2]."""
    reach = float((law.means.abs() + MARGIN * law.sds).max())
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return axis, torch.stack([x, y], dim=2).reshape(-1, 2)


def _rms_under_data(training: HamiltonianScoreMatching, x: torch.Tensor) -> float:
    """sqrt(E|V(x, T)|^2 / D) over the data; 1 would be the size of the velocities themselves."""
    x = x.to(next(training.force.parameters()))
    t = torch.full((len(x),), training.settings.horizon).to(x)
    return float(training.average["critic"](x, t, training.average["force"]).square().mean().sqrt())
