"""Digits on a torus, each shifted at random: densities by Hamiltonian flows without a constraint, and with energies that are
the same wherever an image is shifted to; bits per dimension of held-out images.

Where a digit stands in its frame is an accident of how it was cut out, and a shifted digit is the same digit; a turned one may
be another (6 and 9). The shifts are a finite group: the constraint is hard, by convolutional energies [theory 9.9].
"""

import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, field, to_builtins
from torch import Tensor

from hamflow import draws
from hamflow.data import sources
from hamflow.data.digits import LEVELS
from hamflow.equivariant.torus import shifted
from hamflow.methods.equivariant import DensityGenerator, EquivariantFlow
from hamflow.registry import Count, Options, convert, some
from hamflow.report import style
from hamflow.sampling.likelihood import bits_per_dimension, dequantise
from hamflow.studies.densities import (
    COLOURS,
    DensityTraining,
    both_bounds,
    compared,
    curves,
    lines_of,
    normal_law,
    train,
    write_table,
)

Constraint = Literal["none", "hard"]
MEASURED = ("elbo", "bound", "train", "gap", "unevenness", "parameters")
LEVEL = 2 / LEVELS  # the distance of two grey values, data units
SHIFTED = 8  # times that the test set is shifted, to see how much the bound depends on it
SHOWN = 16  # samples a constraint, drawn in the figure


class Spec(Options, kw_only=True, frozen=True):
    """constraints: which are compared, the first with the other; sizes: of the training sets, images; seeds: runs of each, from
    `seed` on; copies: of each image, with other noise of its grey values; density: what differs from `EquivariantFlow` in
    both, and `none` and `hard` in each; training: what differs from `DensityTraining`; momenta: of the importance-weighted
    bound; evaluation: held-out images; reports: points of a curve."""

    constraints: Annotated[tuple[Constraint, ...], Meta(min_length=1)] = ("none", "hard")
    sizes: Annotated[tuple[Annotated[int, Meta(ge=2)], ...], Meta(min_length=1)] = (200, 1400)
    seeds: Count = 3
    seed: Annotated[int, Meta(ge=0)] = 0
    copies: Count = 16
    density: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=dict)
    none: Annotated[dict[str, Any], some(EquivariantFlow)] = field(
        default_factory=lambda: {"features": "plain", "encoder": "diagonal"}
    )
    hard: Annotated[dict[str, Any], some(EquivariantFlow)] = field(
        default_factory=lambda: {"group": "shifts", "encoder": "torus", "width": 16, "gain": 1.0}
    )
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=lambda: {"train_kimg": 64, "batch": 64})
    momenta: Count = 16
    evaluation: Annotated[int, Meta(ge=2)] = 390
    reports: Count = 8


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A row for each (constraint, size): its runs, mean and standard deviation over them, and the gain over the first."""
    spec = convert(Spec, values, "studies.torus")
    images = digits()
    seeds, run = range(spec.seed, spec.seed + spec.seeds), partial(_run, spec, images)
    rows, seconds = compared("constraint", spec.constraints, spec.sizes, seeds, MEASURED, run)
    train_set, test = _parts(spec, images, max(spec.sizes), spec.seed)
    nats = -normal_law(torch.cat([_dequantised(train_set, 1 + k) for k in range(spec.copies)]).flatten(1))
    return {
        "kind": "torus",
        "spec": to_builtins(spec),
        "floor": _bits(torch.tensor([nats]), images),  # the normal law of the largest training set
        "rows": rows,
        "real": test[:SHOWN].tolist(),
        "n": spec.evaluation,
        "training": {"cpu_seconds_a_run": seconds},
    }


def digits() -> Tensor:
    """The images, data units, [1797, 1, 8, 8], on the lattice of their grey values."""
    images, _ = sources.build_split("digits", {})[0].read()
    return torch.from_numpy(images).permute(0, 3, 1, 2).double().mul(LEVELS / 255).round() * LEVEL - 1


def _parts(spec: Spec, images: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """(training, test) images, each moved by its own shift. The test images and their shifts are those of all runs."""
    order = torch.from_numpy(draws.generator(spec.seed, "study", "torus", "order").permutation(len(images)))
    test, rest = order[: spec.evaluation], order[spec.evaluation :]
    mine = rest[torch.from_numpy(draws.generator(seed, "study", "torus", "choice").permutation(len(rest)))[:size]]
    return tuple(  # type: ignore[return-value]  # two
        _moved(images[part], draws.generator(k, "study", "torus", "shifts", name))
        for part, k, name in ((mine, seed, "training"), (test, spec.seed, "test"))
    )


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image moved by a shift of its own, uniform over the torus."""
    shape = tuple(images.shape[1:])
    moves = [rng.integers(side, size=len(images)) for side in shape[1:]]
    parts = [shifted(x[None], shape, int(i), int(j)) for x, i, j in zip(images, *moves, strict=True)]
    return torch.cat(parts).view(images.shape)


def _dequantised(x: Tensor, seed: int) -> Tensor:
    return dequantise(x, LEVEL, seed)


def _run(spec: Spec, images: Tensor, constraint: Constraint, size: int, seed: int) -> dict[str, Any]:
    own = spec.hard if constraint == "hard" else spec.none
    method = convert(EquivariantFlow, spec.density | own | {"constraint": constraint}, "studies.torus.density")
    plan = convert(DensityTraining, spec.training, "studies.torus.training")
    mine, test = _parts(spec, images, size, seed)
    data = torch.cat([_dequantised(mine, 1 + k) for k in range(spec.copies)]).float()
    seen, test = data[: min(len(mine), spec.evaluation)], _dequantised(test, 0).float()
    generator, curve = train(method, plan, data, seed, float(data.std()), test, spec.reports)
    for point in curve:
        point["elbo"] = _bits(-point["elbo"] * torch.ones(1), images)
    shape, rng = tuple(images.shape[1:]), draws.generator(spec.seed, "study", "torus", "around")
    moves = [[int(rng.integers(side)) for side in shape[1:]] for _ in range(SHIFTED)]
    around = [_bound(generator, shifted(test, shape, *move).view_as(test), spec.momenta) for move in moves]
    of_training = _bound(generator, seen, 1)
    drawn, _ = generator.sample(range(SHOWN), "direct", 1)
    return {
        "seed": seed,
        "curve": curve,
        "elbo": curve[-1]["elbo"],
        "bound": _bound(generator, test, spec.momenta),
        "train": of_training,
        "gap": curve[-1]["elbo"] - of_training,
        "unevenness": float(np.std(around)),
        "parameters": sum(weight.numel() for weight in generator.module.parameters()),
        "samples": drawn.tolist(),
    }


def _bits(log_density: Tensor, images: Tensor) -> float:
    return float(bits_per_dimension(log_density.double(), images[0].numel(), LEVEL).mean())


def _bound(generator: DensityGenerator, x: Tensor, momenta: int) -> float:
    """Bits a dimension, the mean over images; an upper bound."""
    return _bits(generator.log_density(x, momenta), x)


def draw(result: dict[str, Any], output: Path) -> None:
    """Above, the held-out bound against updates, a panel a size, a line a run; below, samples beside real images."""
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    last = [row for row in result["rows"] if row["size"] == sizes[-1]]
    sheets = [("real", result["real"])] + [(f"{row['constraint']}, {row['size']}", row["runs"][0]["samples"]) for row in last]
    with style.drawing(output, max(4.2 * len(sizes), 2.4 * len(sheets)) + 0.4, 5.8) as figure:
        above, below = figure.subfigures(2, 1, height_ratios=(3.2, 2.6))
        for axes, size in curves(above, result, "constraint", COLOURS, both_bounds):
            axes.axhline(result["floor"], color=style.INK, linestyle=":", linewidth=1.0, label="the best normal law")
            axes.set(title=f"{size} images")
            axes.legend(loc="upper right", fontsize=7.5)
        above.axes[0].set_ylabel("bits a dimension, held out")
        for axes, (title, images) in zip(below.subplots(1, len(sheets), squeeze=False)[0], sheets, strict=True):
            axes.imshow(_sheet(np.array(images)), cmap="gray", vmin=-1, vmax=1)
            style.bare(axes)
            axes.set_title(title)
        runs = len(result["rows"][0]["runs"])
        momenta = result["spec"]["momenta"]
        figure.suptitle(f"{runs} seeds each; n = {result['n']}; bound: {momenta} momenta; below: none selected", fontsize=10)


def _sheet(images: np.ndarray) -> np.ndarray:
    """[N, 1, H, W] as one picture with white gaps, about square."""
    across = math.isqrt(len(images))
    framed = np.pad(images[: across**2, 0], ((0, 0), (0, 1), (0, 1)), constant_values=1.0)
    height, width = framed.shape[1:]
    return framed.reshape(across, across, height, width).swapaxes(1, 2).reshape(across * height, across * width)[:-1, :-1]


def tabulate(result: dict[str, Any], output: Path) -> None:
    """A line for each (constraint, size)."""
    write_table(lines_of(result, MEASURED), output)
