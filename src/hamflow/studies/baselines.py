"""Densities of two rings by Hamiltonian flows, without and with a hard symmetry constraint, beside flows of other kinds of
as many weights: affine couplings, spline autoregression, and a continuous flow.

The other flows are those of the library zuko; their densities are exact, the Hamiltonian ones have bounds [theory 9.5].
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, field, structs, to_builtins
from torch import Tensor, nn

from hamflow import draws
from hamflow.equivariant import rotation
from hamflow.errors import ConfigurationError
from hamflow.laws.rings import RingsDensity
from hamflow.methods.base import Facts, Generator
from hamflow.methods.equivariant import EquivariantFlow
from hamflow.registry import Count, Options, Positive, convert, some
from hamflow.report import style
from hamflow.studies.densities import (
    DensityTraining,
    Trainable,
    compared,
    curves,
    lines_of,
    mean,
    normal_law,
    train,
    write_table,
)
from hamflow.training.fit import Batch, Objective, Turn

Model = Literal["hamiltonian", "equivariant", "realnvp", "spline", "continuous"]
LABELS = {
    "hamiltonian": "Hamiltonian",
    "equivariant": "Hamiltonian, hard constraint",
    "realnvp": "RealNVP",
    "spline": "neural spline flow",
    "continuous": "continuous flow",
}
COLOURS = dict(zip(LABELS, ("#444444", "#D55E00", "#0072B2", "#009E73", "#CC79A7"), strict=True))
MEASURED = ("elbo", "bound", "lowest", "train", "gap", "unevenness", "parameters")
OWN: dict[str, dict[str, Any]] = {"hamiltonian": {}, "equivariant": {"constraint": "hard", "encoder": "radial"}}
WIDEST = 512  # of the other flows' networks
ROTATIONS = 8  # of the test set, to see how much the density depends on them


class Spec(Options, kw_only=True, frozen=True):
    """models: which are compared, the first with each other one; sizes: of the training sets, 0: endless; seeds: runs of each,
    from `seed` on; density: what differs from `EquivariantFlow` in the Hamiltonian ones; training: what differs from
    `DensityTraining`, for all; rates: learning rates of models that have their own; momenta: of the importance-weighted bound;
    evaluation: held-out points; reports: points of a curve."""

    models: Annotated[tuple[Model, ...], Meta(min_length=1)] = ("hamiltonian", "equivariant", "realnvp", "spline", "continuous")
    sizes: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)] = (0, 100)
    seeds: Count = 5
    seed: Annotated[int, Meta(ge=0)] = 0
    density: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=dict)
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=dict)
    rates: dict[Model, Positive] = field(default_factory=dict)
    momenta: Count = 64
    evaluation: Annotated[int, Meta(ge=2)] = 4000
    reports: Count = 10


class Baseline:
    """A normalizing flow of zuko, trained as any density.

    Args:
        model: which. weights: its number of weights is the nearest to this one that a width gives.
    Raises:
        ConfigurationError: zuko is not installed.
    """

    def __init__(self, model: Model, weights: int):
        self.model, self.weights = model, weights

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "BaselineObjective":
        make = _families(math.prod(data.shape))[self.model]

        def made(width: int) -> nn.Module:
            with draws.seeded("cpu", seed, "baselines", "weights"):
                return make(width)

        low, high = 1, WIDEST  # of the width, in which the number of weights rises
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _size(made(middle)) >= self.weights else (middle + 1, high)
        width = min((low, max(1, low - 1)), key=lambda w: abs(_size(made(w)) - self.weights))
        return BaselineObjective(made(width), data.sigma_data)

    def generator(self, averaged: "BaselineObjective") -> "BaselineObjective":
        return averaged


class BaselineObjective(Objective):
    """-ln p of a flow of zuko, which sees x / unit.

    Args:
        density: a lazy distribution. unit: spread of the data, data units.
    """

    turns = (Turn("density", "density"),)

    def __init__(self, density: nn.Module, unit: float):
        super().__init__()
        self.density, self.unit = density, unit

    @property
    def module(self) -> nn.Module:
        return self.density

    def losses(self, turn: str, batch: Batch) -> Tensor:
        return -self._exact(batch.x)

    @torch.no_grad()
    def log_density(self, x: Tensor, momenta: int | None = None) -> Tensor:
        """ln p(x), [N], nats, exact: there are no momenta."""
        return self._exact(x)

    def _exact(self, x: Tensor) -> Tensor:
        return self.density().log_prob(x / self.unit) - x.shape[1] * math.log(self.unit)  # type: ignore[no-any-return]


def _families(d: int) -> dict[str, Callable[[int], nn.Module]]:
    """Of the width of their networks, in d dimensions."""
    try:
        from zuko import flows
    except ModuleNotFoundError as error:
        fix = "pip install 'hamflow[baselines]'"
        raise ConfigurationError("zuko is not installed", why="the other flows are its", fix=fix) from error
    return {
        "realnvp": lambda width: flows.RealNVP(d, transforms=6, hidden_features=(width, width)),
        "spline": lambda width: flows.NSF(d, transforms=3, hidden_features=(width, width)),
        "continuous": lambda width: flows.CNF(d, hidden_features=(width, width)),
    }


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A row for each (model, size): its runs, mean and standard deviation over them, and the gain over the first.

    `elbo` is of held-out points at the end, `lowest` at the best of the reports: what a perfect early stop would reach.
    """
    spec, law = convert(Spec, values, "studies.baselines"), RingsDensity()
    test = law.sample(spec.evaluation, draws.generator(spec.seed, "baselines", "test"))
    floor = -law.log_prob(test)
    seeds, run = range(spec.seed, spec.seed + spec.seeds), partial(_run, spec, law, test.float())
    rows, seconds = compared("model", spec.models, spec.sizes, seeds, MEASURED, run)
    return {
        "kind": "baselines",
        "spec": to_builtins(spec),
        "floor": float(floor.mean()),
        "floor_standard_error": float(floor.std() / spec.evaluation**0.5),
        "normal": normal_law(test),
        "rows": rows,
        "n": spec.evaluation,
        "training": {"cpu_seconds_a_run": seconds},
    }


def _method(spec: Spec, model: Model) -> Trainable:
    if model in OWN:
        return convert(EquivariantFlow, spec.density | OWN[model], "studies.baselines.density")
    return Baseline(model, _size(convert(EquivariantFlow, spec.density, "studies.baselines.density").density((2,), 1.0)))


def _run(spec: Spec, law: RingsDensity, test: Tensor, model: Model, size: int, seed: int) -> dict[str, Any]:
    plan = convert(DensityTraining, spec.training, "studies.baselines.training")
    plan = structs.replace(plan, learning_rate=spec.rates.get(model, plan.learning_rate))
    data = law.sample(size or plan.steps * plan.batch, draws.generator(seed, "baselines", "training")).float()
    generator, curve = train(_method(spec, model), plan, data, seed, float(data.std()), test, spec.reports)
    turn = rotation(2)
    turned = [turn.move(test, test, 2 * math.pi * k / ROTATIONS)[0] for k in range(ROTATIONS)]
    around = [mean(-generator.log_density(x, spec.momenta)) for x in turned]
    of_training = mean(-generator.log_density(data[: spec.evaluation], 1))
    return {
        "seed": seed,
        "curve": curve,
        "elbo": curve[-1]["elbo"],
        "bound": around[0],
        "lowest": min(point["elbo"] for point in curve),
        "train": of_training,
        "gap": curve[-1]["elbo"] - of_training,
        "unevenness": float(np.std(around)),
        "parameters": _size(generator.module),
    }


def _bound_of(row: dict[str, Any]) -> str:
    return f"{LABELS[row['model']]}: {row['bound']['mean']:.3f}"


def draw(result: dict[str, Any], output: Path) -> None:
    """-ln p of held-out points (of Hamiltonian flows its bound) against updates, a panel a size, a line a run."""
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    with style.drawing(output, 4.4 * len(sizes) + 0.4, 3.8) as figure:
        for axes, size in curves(figure, result, "model", COLOURS, _bound_of):
            axes.axhline(result["floor"], color=style.INK, linestyle="--", linewidth=1.0, label="the law itself")
            axes.axhline(result["normal"], color=style.INK, linestyle=":", linewidth=1.0, label="the best normal law")
            axes.set(title=f"{size} data" if size else "endless data")
            axes.legend(loc="upper right", fontsize=7)
        figure.axes[0].set_ylabel("$-\\ln p$, held out (nats)")
        low = min(point["elbo"] for row in result["rows"] for one in row["runs"] for point in one["curve"])
        figure.axes[0].set_ylim(min(low, result["floor"]) - 0.05, result["floor"] + 1.8)
        runs = len(result["rows"][0]["runs"])
        momenta = result["spec"]["momenta"]
        what = f"lines: ELBO of Hamiltonian flows, else exact; legend: their bound, {momenta} momenta"
        figure.suptitle(f"{runs} seeds each; n = {result['n']}; {what}", fontsize=9)


def tabulate(result: dict[str, Any], output: Path) -> None:
    """A line for each (model, size)."""
    write_table(lines_of(result, MEASURED, "model"), output)
