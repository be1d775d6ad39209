"""The empirical discrepancy against time, beside its Taylor prediction 2 t^2 L_esm."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import field

from hamflow.methods.score_matching import ScoreMatching
from hamflow.registry import Count, Positive, convert, some
from hamflow.report import style
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.studies import base

ESTIMATORS = {"critic": "trained critic", "features": "random features", "binned": "bins", "neighbours": "neighbours"}
ESTIMATOR_COLOURS = {"critic": "#D55E00", "features": "#0072B2", "binned": "#009E73", "neighbours": "#CC79A7"}


class Spec(base.Common, kw_only=True, frozen=True):
    """Besides the common keys: sigma, training: of the denoising score matching that leaves the score imperfect;
    times: of the discrepancy; samples; estimators: {name: options} of `hamiltonian_score_discrepancy`; steps:
        of integration."""

    network: base.Network = field(default_factory=lambda: {"kind": "small", "width": 64, "depth": 2})
    sigma: Positive = 0.3
    training: Annotated[dict[str, Any], some(base.ScoreTraining)] = field(
        default_factory=lambda: {"train_kimg": 15.36, "learning_rate": 3e-3}
    )
    times: tuple[Positive, ...] = (0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
    samples: Count = 100_000
    estimators: dict[str, Any] = field(
        default_factory=lambda: {
            "critic": {"critic": {"kind": "small", "width": 128, "depth": 3}, "training": {"train_kimg": 1536, "batch": 512}},
            "features": {},
        }
    )
    steps: Count = 12


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train an imperfect score, and estimate its discrepancy at every time with every estimator."""
    spec = convert(Spec, values, "studies.taylor")
    law = spec.law()
    plan = convert(base.ScoreTraining, spec.training, "training")
    score = base.train_score(spec, ScoreMatching(sigma=spec.sigma), plan, spec.seed).module
    x = base.samples_of_discrepancy(law, spec.samples, spec.seed)
    force = base.in_double(score)
    with torch.no_grad():  # on the very samples of the discrepancy: their sampling error is then common to both
        errors = (force(x) - law.score(x)).square().sum(1)
    curves = {}
    for name, options in spec.estimators.items():
        start = x.float() if name == "critic" else x  # a network computes in float32
        found = hamiltonian_score_discrepancy(
            force, start, spec.times, estimator=name, seed=spec.seed, steps=spec.steps, scheme="mclachlan", **options
        )
        taylor = np.square(found.times) * float(errors.mean())
        curves[name] = {
            **found.as_dict(),
            "ratio": (found.values / taylor).tolist(),
            "ratio_standard_error": (found.standard_errors / taylor).tolist(),
        }
    return {
        "kind": "taylor",
        "spec": spec.as_dict(),
        "explicit_loss": float(errors.mean()) / 2,
        "explicit_loss_standard_error": float(errors.std()) / 2 / spec.samples**0.5,
        "curves": curves,
        "n": spec.samples,
    }


def draw(result: dict[str, Any], output: Path) -> None:
    """Panel (b): the discrepancy against time, and its ratio to the prediction."""
    with style.drawing(output, 7.6, 3.3) as figure:
        left, right = figure.subplots(1, 2)
        times = np.array(next(iter(result["curves"].values()))["times"])
        fine = np.linspace(0, times[-1], 100)
        top = 1.6 * max(max(curve["values"]) for curve in result["curves"].values())
        left.plot(fine, 2 * fine**2 * result["explicit_loss"], "--", color=style.INK, label=r"$2 t^2 L_{esm}$")
        right.axhspan(0.95, 1.05, color="#EEEEEE", zorder=0, label=r"$\pm$ 5 %")
        right.axhline(1, color=style.INK, linestyle="--", linewidth=1.1)
        for (name, curve), shape in zip(result["curves"].items(), "os^D", strict=False):
            colour, label = ESTIMATOR_COLOURS.get(name, style.INK), ESTIMATORS.get(name, name)
            left.errorbar(times, curve["values"], curve["standard_errors"], fmt=f"-{shape}", color=colour, label=label)
            right.errorbar(times, curve["ratio"], curve["ratio_standard_error"], fmt=f"-{shape}", color=colour, label=label)
        left.set(xlabel="time $t$", ylabel="discrepancy $D(t)$", xlim=(0, None), ylim=(0, top))
        right.set(xlabel="time $t$", ylabel=r"$D(t)\, /\, 2 t^2 L_{esm}$", xlim=(0, None), ylim=(0, None))
        left.legend(loc="upper left")
        right.legend(loc="lower left")
        figure.suptitle(
            f"empirical discrepancy and its Taylor prediction, $L_{{esm}}$ = {result['explicit_loss']:.3f}, n = {result['n']}",
            fontsize=10,
        )
