"""Densities of two rings by Hamiltonian flows without a symmetry constraint, with a soft one ({J, H} = 0 by a multiplier) and
with a hard one (by construction): the bound on held-out data against updates, for endless and for few data.

The claims of Equivariant Hamiltonian Flows (arXiv:1909.13739) about data efficiency and over-fitting [theory 9.6].
"""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, field, to_builtins

from hamflow import draws
from hamflow.equivariant import rotation
from hamflow.equivariant.constraints import constrained
from hamflow.laws.rings import RingsDensity
from hamflow.methods.base import Facts
from hamflow.methods.equivariant import EquivariantFlow
from hamflow.registry import Count, Fraction, NotNegative, Options, Positive, convert, some
from hamflow.report import style
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

Constraint = Literal["none", "soft", "hard"]
SUMMARY = ("elbo", "bound", "train", "residual", "unevenness")
COLOURS = {"none": "#444444", "soft": "#0072B2", "hard": "#D55E00"}
ROTATIONS = 8  # of the test set, to see how much the bound depends on them


class DensityTraining(Training, kw_only=True, frozen=True):
    """How a density is trained; 2,000 updates take about half a minute of one core."""

    train_kimg: Positive = 512.0
    learning_rate: Positive = 4e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    ema_halflife_kimg: NotNegative = 10.0
    gradient_clip: NotNegative = 5.0


class Spec(Options, kw_only=True, frozen=True):
    """constraints: which are compared; sizes: of the training sets, 0: endless; seeds: runs of each, from `seed` on;
    method: what differs from `EquivariantFlow` in all, and `soft` in the soft one; training: what differs from
    `DensityTraining`; momenta: of the importance-weighted bound; evaluation: held-out points; reports: points of a curve."""

    constraints: Annotated[tuple[Constraint, ...], Meta(min_length=1)] = ("none", "soft", "hard")
    sizes: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)] = (0, 100)
    seeds: Count = 5
    seed: Annotated[int, Meta(ge=0)] = 0
    method: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=lambda: {"encoder": "radial"})
    soft: Annotated[dict[str, Any], some(EquivariantFlow)] = field(
        default_factory=lambda: {"tolerance": 3e-6, "multiplier": 10.0, "limit": 1e4}
    )
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=dict)
    momenta: Count = 64
    evaluation: Annotated[int, Meta(ge=2)] = 4000
    reports: Count = 10


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A row for each (constraint, size): its runs, and mean and standard deviation over them."""
    spec = convert(Spec, values, "studies.symmetry")
    law, rows, seconds = RingsDensity(), [], {}
    test = law.sample(spec.evaluation, draws.generator(spec.seed, "study", "symmetry", "test"))
    floor = -law.log_prob(test)
    for size in spec.sizes:
        for constraint in spec.constraints:
            began = time.process_time()
            runs = [_run(spec, law, test.float(), constraint, size, k) for k in range(spec.seed, spec.seed + spec.seeds)]
            seconds[f"{constraint}, {size or 'endless'}"] = (time.process_time() - began) / spec.seeds
            rows.append({"constraint": constraint, "size": size, "runs": runs, **_summary(runs)})
    return {
        "kind": "symmetry",
        "spec": to_builtins(spec),
        "floor": float(floor.mean()),  # the law's own -ln p on the very points on which the bounds are taken
        "floor_standard_error": float(floor.std() / spec.evaluation**0.5),
        "rows": rows,
        "n": spec.evaluation,
        "training": {"cpu_seconds_a_run": seconds},
    }


def _run(spec: Spec, law: RingsDensity, test: torch.Tensor, constraint: Constraint, size: int, seed: int) -> dict[str, Any]:
    options = spec.method | (spec.soft if constraint == "soft" else {}) | {"constraint": constraint}
    method = convert(EquivariantFlow, options, "studies.symmetry.method")
    plan = convert(DensityTraining, spec.training, "studies.symmetry.training")
    data = law.sample(size or plan.steps * plan.batch, draws.generator(seed, "study", "symmetry", "training")).float()
    facts = Facts(name="rings", shape=(2,), classes=0, sigma_data=float(data.std()), box=(-5.0, 5.0), network={})
    objective = method.objective(facts, {}, seed)
    state, curve = State(objective, plan), []
    generator = method.generator(state.averaged)
    for _ in fit(objective, Samples(data), plan, seed, state):
        if state.step * spec.reports // plan.steps > (state.step - 1) * spec.reports // plan.steps:
            curve.append({"step": state.step, "elbo": _mean(-generator.log_density(test, 1))})
    turned = [rotation(2).move(test, test, 2 * np.pi * k / ROTATIONS)[0] for k in range(ROTATIONS)]
    around = [_mean(-generator.log_density(x, spec.momenta)) for x in turned]
    return {
        "seed": seed,
        "curve": curve,
        "elbo": curve[-1]["elbo"],
        "bound": around[0],
        "train": _mean(-generator.log_density(data[: spec.evaluation], 1)),
        "residual": _residual(generator.module, test),
        "unevenness": float(np.std(around)),
    }


@torch.no_grad()
def _residual(density: Any, x: torch.Tensor) -> float:
    """The mean of {J, H}^2 on the way of the test set back to the base law."""
    noise = torch.from_numpy(draws.generator(0, "residual").standard_normal((1, *x.shape))).to(x)
    return _mean(constrained(density, [rotation(2)], x, noise)[1])


def _mean(values: torch.Tensor) -> float:
    return float(values.double().mean())


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = {key: np.array([one[key] for one in runs]) for key in SUMMARY}
    return {
        key: {"mean": float(found.mean()), "std": float(found.std(ddof=1)) if len(found) > 1 else None}
        for key, found in values.items()
    }


def draw(result: dict[str, Any], output: Path) -> None:
    """The held-out bound against updates, a panel a size, a line a run; below, where each constraint ended."""
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    with style.drawing(output, 4.4 * len(sizes) + 0.4, 3.6) as figure:
        for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
            for row in (row for row in result["rows"] if row["size"] == size):
                end = f"{row['constraint']}: {row['elbo']['mean']:.3f}, bound {row['bound']['mean']:.3f}"
                for number, one in enumerate(row["runs"]):
                    steps, values = ([point[key] for point in one["curve"]] for key in ("step", "elbo"))
                    axes.plot(steps, values, color=COLOURS[row["constraint"]], lw=1.2, label="" if number else end)
            axes.axhline(result["floor"], color=style.INK, linestyle="--", linewidth=1.0, label="the law itself")
            axes.set(xlabel="updates", title=f"{size} data" if size else "endless data")
            axes.legend(loc="upper right", fontsize=7.5)
        figure.axes[0].set_ylabel("negative bound, held out (nats)")
        low = min(point["elbo"] for row in result["rows"] for one in row["runs"] for point in one["curve"])
        figure.axes[0].set_ylim(min(low, result["floor"]) - 0.05, result["floor"] + 1.4)
        runs = len(result["rows"][0]["runs"])
        figure.suptitle(f"{runs} seeds each; n = {result['n']}; bound: {result['spec']['momenta']} momenta", fontsize=10)
