"""Explicit score matching loss against the Hamiltonian score discrepancy, for networks trained for one epoch."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import field

from hamflow import draws
from hamflow.methods.score_matching import ScoreMatching
from hamflow.registry import Count, Positive, convert
from hamflow.report import style
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.score.estimators import ESTIMATORS
from hamflow.studies import base


class Spec(base.Common, kw_only=True, frozen=True):
    """Besides the common keys (`network` is not used: each network has its own):
    networks: how many; data: samples of the epoch; horizon, times: T and the number of times of the discrepancy;
    samples: of the discrepancy; estimator, options: of `hamiltonian_score_discrepancy`."""

    networks: Count = 40
    data: Count = 20_000
    horizon: Positive = 0.6
    times: Count = 6
    samples: Count = 10_000
    estimator: Annotated[str, ESTIMATORS.name()] = "features"
    options: dict[str, Any] = field(default_factory=dict)


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train every network by denoising score matching on one epoch of the same data, then measure both."""
    from scipy import stats

    spec = convert(Spec, values, "studies.scatter")
    rows = [_one(spec, index) for index in range(spec.networks)]
    losses, values_ = [row["explicit_loss"] for row in rows], [row["hsd"] for row in rows]
    return {
        "kind": "scatter",
        "spec": spec.as_dict(),
        "networks": rows,
        "pearson_log": float(stats.pearsonr(np.log(losses), np.log(np.maximum(values_, 1e-12))).statistic),
        "pearson": float(stats.pearsonr(losses, values_).statistic),
        "spearman": float(stats.spearmanr(losses, values_).statistic),
        "n": spec.samples,
    }


def recipe(rng: np.random.Generator) -> dict[str, Any]:
    """Width, depth, learning rate, noise level and batch of one network, at random."""
    return {
        "width": int(2 ** rng.uniform(3, 7)),
        "depth": int(rng.integers(1, 4)),
        "learning_rate": float(10 ** rng.uniform(-3, -1.5)),
        "sigma": float(10 ** rng.uniform(-1.5, 0)),
        "batch": int(2 ** rng.uniform(6, 9)),
    }


def _one(spec: Spec, index: int) -> dict[str, Any]:
    law, choice = spec.law(), recipe(draws.generator(spec.seed, "scatter", "recipe", index))
    data = law.sample(spec.data, draws.generator(spec.seed, "scatter", "data"))
    network = {"kind": "small", "width": choice["width"], "depth": choice["depth"]}
    plan = base.ScoreTraining(  # one epoch: each sample once
        train_kimg=spec.data / 1000,
        batch=choice["batch"],
        learning_rate=choice["learning_rate"],
        ema_halflife_kimg=6.6 * choice["batch"] / 1000,
    )
    method = ScoreMatching(sigma=choice["sigma"])
    score = base.train_score(msgspec.structs.replace(spec, network=network), method, plan, spec.seed + index, data).module
    error, standard_error = base.score_error(law, score, spec.evaluation, spec.seed)
    found = hamiltonian_score_discrepancy(
        base.in_double(score),
        base.samples_of_discrepancy(law, spec.samples, spec.seed),
        np.linspace(spec.horizon / spec.times, spec.horizon, spec.times),
        estimator=spec.estimator,
        seed=spec.seed,
        **{"scheme": "mclachlan", **spec.options},
    )
    return {
        **choice,
        "steps": plan.steps,
        "explicit_loss": error / 2,
        "explicit_loss_standard_error": standard_error / 2,
        "hsd": found.average,
        "hsd_standard_error": found.average_standard_error,
    }


def draw(result: dict[str, Any], output: Path) -> None:
    """Panel (a): a dot a network, and the leading order (2 T^2 / 3) L_esm."""
    rows, horizon = result["networks"], result["spec"]["horizon"]
    x, y = (np.array([row[key] for row in rows]) for key in ("explicit_loss", "hsd"))
    dx, dy = (np.array([row[f"{key}_standard_error"] for row in rows]) for key in ("explicit_loss", "hsd"))
    with style.drawing(output, 4.9, 3.7) as figure:
        axes = figure.subplots()
        axes.errorbar(x, y, dy, dx, "o", color=style.HAMILTONIAN, elinewidth=0.7, markersize=4, alpha=0.85, label="a network")
        line = np.geomspace(x.min(), x.max(), 50)
        taylor = 2 * horizon**2 / 3 * line
        axes.plot(line, taylor, "--", color=style.INK, linewidth=1.1, label=r"leading order, $\frac{2}{3}T^2 L_{esm}$")
        axes.set(xscale="log", yscale="log", xlabel=r"explicit score matching loss $L_{esm}$")
        axes.set_ylabel(f"Hamiltonian score discrepancy,\naverage over $[0, {horizon:g}]$")
        style.plain_log(axes.xaxis)
        style.plain_log(axes.yaxis)
        axes.set_title(
            f"{len(rows)} networks, one epoch each; n = {result['n']}\n"
            f"Spearman {result['spearman']:.3f}, Pearson {result['pearson']:.3f}, of logarithms {result['pearson_log']:.3f}"
        )
        axes.legend(loc="lower right")
