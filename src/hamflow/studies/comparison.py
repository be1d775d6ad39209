"""Denoising, implicit, sliced and Hamiltonian score matching at equal time and at equal steps."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import field
from msgspec.structs import replace as replace_plan
from torch import nn

from hamflow.errors import ConfigurationError
from hamflow.files import write_text
from hamflow.methods.base import Method
from hamflow.methods.score_matching import ScoreMatching
from hamflow.registry import Count, Positive, convert, some
from hamflow.report import style
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.studies import base, mixture
from hamflow.training.plan import Training

Train = Callable[[int, int], nn.Module]  # (updates, seed) -> the trained score

# Times of an update at the default networks and batch, in updates of denoising, measured once on one core: a result must not
# depend on how busy the machine was. Every run reports what it measured, `provenance.training`.
COSTS = {"hsm@form=scaled": 13.6, "hsm@form=residual": 8.1, "dsm": 1.0, "ism": 2.4, "ism@hutchinson": 1.7, "ssm": 1.75}


SLOWER_SCORE = {"learning_rate": 1e-3, "players": {"critic": {"learning_rate": 3e-3}}}


class Spec(mixture.Spec, kw_only=True, frozen=True):
    """Besides the keys of the experiment `mixture`, which are those of Hamiltonian score matching:
    seeds: how many runs;
    forms: {form of the velocity predictor: settings beside `hamiltonian`, and `training`}, a method each;
    sigmas: of denoising; direct: training of the methods without critic, but for its length and its batch;
    costs: {method: time of an update}, any unit, `dsm` for denoising at every sigma; at equal time each method has so many
        updates as take the time of `training` has of the first form;
    horizon, times, samples: of the discrepancy that is reported."""

    seeds: Count = 5
    training: Annotated[dict[str, Any], some(mixture.MatchingTraining)] = field(default_factory=lambda: {"train_kimg": 512})
    forms: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"scaled": {"critic_steps": 3, "training": SLOWER_SCORE}, "residual": {}}
    )
    sigmas: tuple[Positive, ...] = (0.05, 0.1, 0.3)
    direct: Annotated[dict[str, Any], some(base.ScoreTraining)] = field(default_factory=lambda: {"learning_rate": 3e-3})
    costs: dict[str, Positive] = field(default_factory=lambda: dict(COSTS))
    horizon: Positive = 0.6
    times: Count = 6
    samples: Count = 10_000


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A row for each (method, budget): exact score error and discrepancy, mean and standard deviation over the seeds."""
    spec = convert(Spec, values, "studies.comparison")
    steps = spec.plan().steps
    methods = _methods(spec)
    costs = {name: _cost(spec, name) for name in methods}
    budget = steps * next(iter(costs.values()))
    rows, took = [], {}
    for name, train in methods.items():
        done: dict[int, list[dict[str, Any]]] = {}  # the first method's two budgets are one
        seconds: list[float] = []
        for kind, updates in (("steps", steps), ("time", max(1, round(budget / costs[name])))):
            if updates not in done:
                done[updates] = [_run(spec, train, updates, seed, seconds) for seed in range(spec.seed, spec.seed + spec.seeds)]
            rows.append(_row(name, kind, updates, updates * costs[name] / budget, done[updates]))
        took[name] = 1e3 * float(np.median(seconds))
    return {
        "kind": "comparison",
        "spec": spec.as_dict(),
        "rows": rows,
        "fisher_information": base.fisher_information(spec.law(), spec.evaluation, spec.seed),
        "n": spec.samples,
        "training": {"cpu_milliseconds_an_update": took},
    }


def _methods(spec: Spec) -> dict[str, Train]:
    methods: dict[str, Train] = {}
    for form, settings in spec.forms.items():
        own = {key: value for key, value in settings.items() if key != "training"}
        plan = convert(mixture.MatchingTraining, spec.training | settings.get("training", {}), f"forms.{form}.training")
        method = convert(mixture.Matching, spec.hamiltonian | own | {"form": form}, f"forms.{form}")
        methods[f"hsm@form={form}"] = partial(_train, spec, method, plan)
    batch = {"batch": spec.plan().batch}
    direct = convert(base.ScoreTraining, spec.direct | batch, "direct")
    scores = {f"dsm@sigma={sigma:g}": ScoreMatching(sigma=sigma) for sigma in spec.sigmas}
    scores |= {"ism": ScoreMatching(loss="implicit"), "ism@hutchinson": ScoreMatching(loss="hutchinson")}
    scores["ssm"] = ScoreMatching(loss="sliced")
    return methods | {name: partial(_train, spec, method, direct) for name, method in scores.items()}


def _cost(spec: Spec, name: str) -> float:
    key = "dsm" if name.startswith("dsm") else name
    if not spec.costs.get(key, 0) > 0:
        raise ConfigurationError(
            f"`costs` must hold the time of an update of '{key}', a number > 0, got {spec.costs.get(key)!r}",
            why="the number of updates at equal time follows from it",
            fix="any unit; a result of this experiment holds what it measured, provenance.training",
        )
    return spec.costs[key]


def _train(spec: Spec, method: Method, plan: Training, updates: int, seed: int) -> nn.Module:
    return base.train_score(spec, method, replace_plan(plan, train_kimg=updates * plan.batch / 1000), seed).module


def _run(spec: Spec, train: Train, updates: int, seed: int, seconds: list[float]) -> dict[str, Any]:
    """Train and measure; the time of an update is appended to `seconds`."""
    began = time.process_time()
    score = train(updates, seed)
    seconds.append((time.process_time() - began) / updates)
    found = hamiltonian_score_discrepancy(
        base.in_double(score),
        base.samples_of_discrepancy(spec.law(), spec.samples, spec.seed),
        np.linspace(spec.horizon / spec.times, spec.horizon, spec.times),
        estimator="features",
        seed=spec.seed,
    )
    error, _ = base.score_error(spec.law(), score, spec.evaluation, spec.seed)
    return {"seed": seed, "score_error": error, "hsd": found.average, "hsd_standard_error": found.average_standard_error}


def _row(method: str, budget: str, updates: int, relative_time: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "budget": budget, "steps": updates, "time": relative_time, "runs": runs}
    for key in ("score_error", "hsd"):
        values = np.array([run[key] for run in runs])
        row[key] = {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else None}
    return row


def draw(result: dict[str, Any], output: Path) -> None:
    """Exact score error and discrepancy of each method, at equal steps and at equal time."""
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    budgets = {"steps": ("equal updates", style.START, "o", -0.12), "time": ("equal time", style.END, "s", 0.12)}
    with style.drawing(output, 8.2, 0.42 * len(methods) + 1.5) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        quantities = (("score_error", r"$E|s - \nabla \log p|^2$"), ("hsd", "Hamiltonian score discrepancy"))
        for axes, (key, label) in zip(panels, quantities, strict=True):
            for budget, (words, colour, shape, shift) in budgets.items():
                rows = [row for row in result["rows"] if row["budget"] == budget]
                where = [methods.index(row["method"]) + shift for row in rows]
                mean, std = ([row[key][part] or 0.0 for row in rows] for part in ("mean", "std"))
                axes.errorbar(mean, where, xerr=std, fmt=shape, color=colour, label=words, capsize=2.5)
            means = np.array([row[key]["mean"] for row in result["rows"]])
            axes.set_xlabel(label)
            if (means > 0).all():
                axes.set_xscale("log")
                style.plain_log(axes.xaxis)
            else:  # an estimate of zero may be negative
                axes.axvline(0, color=style.INK, linewidth=0.8)
        panels[0].set_yticks(range(len(methods)), [_method(name) for name in methods])
        panels[0].invert_yaxis()
        panels[0].legend(loc="best")
        runs = len(result["rows"][0]["runs"])
        updates = result["rows"][0]["steps"]
        budget = f"budget: {updates} updates, or the time that the first method needs for them"
        figure.suptitle(f"mean and standard deviation of {runs} seeds; {budget}; n = {result['n']}", fontsize=10)


def tabulate(result: dict[str, Any], output: Path) -> None:
    """The comparison as a .csv, and a .md beside it."""
    import pandas as pd

    lines = []
    for row in result["rows"]:
        line = {"method": row["method"], "budget": row["budget"], "updates": row["steps"], "relative_time": row["time"]}
        for key in ("score_error", "hsd"):
            line |= {key: row[key]["mean"], f"{key}_std": row[key]["std"]}
        lines.append({**line, "seeds": len(row["runs"]), "n": result["n"]})
    frame = pd.DataFrame(lines)
    write_text(output.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    write_text(output.with_suffix(".md"), frame.to_markdown(index=False, floatfmt=".4g", missingval="") + "\n")


def _method(name: str) -> str:
    kind, _, value = name.partition("=")
    known = {"hsm@form": f"HSM, {value} critic", "dsm@sigma": f"DSM, $\\sigma$ = {value}"}
    implicit = {"ism": "ISM, exact divergence", "ism@hutchinson": "ISM, Hutchinson", "ssm": "ISM, sliced"}
    return known.get(kind) or implicit.get(name, name)
