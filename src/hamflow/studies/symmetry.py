"""Densities of two rings by Hamiltonian flows without a symmetry constraint, with a soft one ({J, H} = 0 by a multiplier) and
with a hard one (by construction): the bound on held-out data against updates, for endless and for few data.

The claims of Equivariant Hamiltonian Flows (arXiv:1909.13739) about data efficiency and over-fitting [theory 9.6].
"""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from msgspec import Meta, field, to_builtins
from torch import Tensor

from hamflow import draws
from hamflow.equivariant import AffineGenerator, rotation
from hamflow.equivariant.constraints import constrained
from hamflow.laws.rings import RingsDensity
from hamflow.methods.equivariant import DensityGenerator, EquivariantFlow
from hamflow.registry import Count, Options, convert, some
from hamflow.report import style
from hamflow.studies.densities import (
    COLOURS,
    DensityTraining,
    both_bounds,
    compared,
    curves,
    lines_of,
    mean,
    noise_like,
    normal_law,
    representation,
    train,
    write_table,
)

Constraint = Literal["none", "soft", "hard"]
MEASURED = ("elbo", "bound", "train", "gap", "residual", "unevenness", "turning", "leakage")
ROTATIONS = 8  # of the test set, to see how much the bound depends on them


class Spec(Options, kw_only=True, frozen=True):
    """constraints: which are compared, the first with each other one; sizes: of the training sets, 0: endless; seeds: runs of
    each, from `seed` on; density: what differs from `EquivariantFlow` in all, and `soft` and `hard` in these ones, of
    which the encoder of the latter is as able as the Cartesian one where there is a symmetry; training: what differs from
    `DensityTraining`; momenta: of the importance-weighted bound; evaluation: held-out points; reports: points of
    a curve."""

    constraints: Annotated[tuple[Constraint, ...], Meta(min_length=1)] = ("none", "soft", "hard")
    sizes: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)] = (0, 100)
    seeds: Count = 5
    seed: Annotated[int, Meta(ge=0)] = 0
    density: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=dict)
    soft: Annotated[dict[str, Any], some(EquivariantFlow)] = field(
        default_factory=lambda: {"tolerance": 1e-6, "multiplier": 100.0, "limit": 1e5}
    )
    hard: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=lambda: {"encoder": "radial"})
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=dict)
    momenta: Count = 64
    evaluation: Annotated[int, Meta(ge=2)] = 4000
    reports: Count = 10


class System(Protocol):
    """A law with a symmetry, and how a flow with a constraint sees it."""

    law: Any

    def seen(self, constraint: str, x: Tensor) -> Tensor:
        """The coordinates that the model is given, by an isometry: its density is that of the data."""

    def rotation(self, constraint: str) -> AffineGenerator:
        """J on these coordinates."""

    def options(self, constraint: str) -> dict[str, Any]:
        """What a constraint asks of `EquivariantFlow`."""


class Rings:
    """Two rings in the plane, which every constraint sees as they are."""

    law = RingsDensity()

    def seen(self, constraint: str, x: Tensor) -> Tensor:
        return x

    def rotation(self, constraint: str) -> AffineGenerator:
        return rotation(2)

    def options(self, constraint: str) -> dict[str, Any]:
        return {}


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The comparison on two rings."""
    return compare("symmetry", convert(Spec, values, "studies.symmetry"), Rings())


def compare(kind: str, spec: Spec, system: System) -> dict[str, Any]:
    """A row for each (constraint, size): its runs, mean and standard deviation over them, and the gain over the first."""
    test = system.law.sample(spec.evaluation, draws.generator(spec.seed, "study", kind, "test"))
    floor = -system.law.log_prob(test)
    seeds, run = range(spec.seed, spec.seed + spec.seeds), partial(_run, kind, spec, system, test.float())
    rows, seconds = compared("constraint", spec.constraints, spec.sizes, seeds, MEASURED, run)
    return {
        "kind": kind,
        "spec": to_builtins(spec),
        "floor": float(floor.mean()),  # the law's own -ln p on the very points on which the bounds are taken
        "floor_standard_error": float(floor.std() / spec.evaluation**0.5),
        "normal": normal_law(system.seen("none", test)),
        "rows": rows,
        "n": spec.evaluation,
        "training": {"cpu_seconds_a_run": seconds},
    }


def _run(kind: str, spec: Spec, system: System, test: Tensor, constraint: Constraint, size: int, seed: int) -> dict[str, Any]:
    own: dict[str, Any] = {"none": {}, "soft": spec.soft, "hard": spec.hard}[constraint]
    options = spec.density | own | system.options(constraint)
    method = convert(EquivariantFlow, options | {"constraint": constraint}, f"studies.{kind}.density")
    plan = convert(DensityTraining, spec.training, f"studies.{kind}.training")
    drawn = system.law.sample(size or plan.steps * plan.batch, draws.generator(seed, "study", kind, "training")).float()
    data, test, turn = system.seen(constraint, drawn), system.seen(constraint, test), system.rotation(constraint)
    generator, curve = train(method, plan, data, seed, float(data.std()), test, spec.reports)
    turned = [turn.move(test, test, 2 * math.pi * k / ROTATIONS)[0] for k in range(ROTATIONS)]
    around = [mean(-generator.log_density(x, spec.momenta)) for x in turned]
    seen = mean(-generator.log_density(data[: spec.evaluation], 1))
    return {
        "seed": seed,
        "curve": curve,
        "elbo": curve[-1]["elbo"],
        "bound": around[0],
        "train": seen,
        "gap": curve[-1]["elbo"] - seen,
        "residual": _residual(generator, turn, test),
        "unevenness": float(np.std(around)),
        **representation(generator, test, turn),
    }


@torch.no_grad()
def _residual(generator: DensityGenerator, turn: AffineGenerator, x: Tensor) -> float:
    """The mean of {J, H}^2 on the way of the test set back to the base law."""
    return mean(constrained(generator.module, [turn], x, noise_like(x, draws.generator(0, "residual")))[1])


def draw(result: dict[str, Any], output: Path) -> None:
    """The held-out bound against updates, a panel a size, a line a run; in the legend, where each constraint ended."""
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    with style.drawing(output, 4.4 * len(sizes) + 0.4, 3.6) as figure:
        for axes, size in curves(figure, result, "constraint", COLOURS, both_bounds):
            axes.axhline(result["floor"], color=style.INK, linestyle="--", linewidth=1.0, label="the law itself")
            axes.axhline(result["normal"], color=style.INK, linestyle=":", linewidth=1.0, label="the best normal law")
            axes.set(title=f"{size} data" if size else "endless data")
            axes.legend(loc="upper right", fontsize=7.5)
        figure.axes[0].set_ylabel("negative bound, held out (nats)")
        low = min(point["elbo"] for row in result["rows"] for one in row["runs"] for point in one["curve"])
        figure.axes[0].set_ylim(min(low, result["floor"]) - 0.05, result["floor"] + 1.4)
        runs = len(result["rows"][0]["runs"])
        figure.suptitle(f"{runs} seeds each; n = {result['n']}; bound: {result['spec']['momenta']} momenta", fontsize=10)


def tabulate(result: dict[str, Any], output: Path) -> None:
    """A line for each (constraint, size)."""
    write_table(lines_of(result, MEASURED), output)
