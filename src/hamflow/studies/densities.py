"""What the studies of densities share: how one is trained, its learning curve, and statistics over runs of several seeds."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hamflow.equivariant import AffineGenerator
from hamflow.files import write_text
from hamflow.methods.base import Facts, Generator
from hamflow.methods.equivariant import DensityGenerator
from hamflow.registry import Fraction, NotNegative, Positive
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

COLOURS = {"none": "#444444", "soft": "#0072B2", "hard": "#D55E00"}


class DensityTraining(Training, kw_only=True, frozen=True):
    """How a density is trained; 2,000 updates take about half a minute of one core."""

    train_kimg: Positive = 512.0
    learning_rate: Positive = 4e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    ema_halflife_kimg: NotNegative = 10.0
    gradient_clip: NotNegative = 5.0


class Trainable(Protocol):
    """A kind of density, as `hamflow.methods.equivariant.EquivariantFlow` is one."""

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> Any:
        """What its training minimises, with new weights."""

    def generator(self, averaged: Any) -> Any:
        """What has `log_density(x, momenta)` and `module`, of the averaged weights."""


def train(
    method: Trainable, plan: Training, data: Tensor, seed: int, unit: float, test: Tensor | None = None, reports: int = 1
) -> tuple[Any, list[dict[str, Any]]]:
    """A trained density, and its -ELBO on test data in the course of the training, {step, elbo}, none without test data.

    Args:
        data: [N, *shape]; fewer than a training has updates are met again and again. unit: their spread, data units.
        test: [M, *shape]. reports: points of the curve.
    """
    facts = Facts(name="data", shape=tuple(data.shape[1:]), classes=0, sigma_data=unit, box=(-1.0, 1.0), network={})
    objective = method.objective(facts, {}, seed)
    state, curve = State(objective, plan), []
    generator = method.generator(state.averaged)
    for _ in fit(objective, Samples(data), plan, seed, state):
        reported = [step * reports // plan.steps for step in (state.step - 1, state.step)]
        if test is not None and reported[0] < reported[1]:
            curve.append({"step": state.step, "elbo": mean(-generator.log_density(test, 1))})
    return generator, curve


def mean(values: Tensor) -> float:
    return float(values.double().mean())


def noise_like(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Unit normal numbers, [1, *shape of x]: one draw of the momenta for each row."""
    return torch.from_numpy(rng.standard_normal((1, *x.shape))).to(x)


def normal_law(x: Tensor) -> float:
    """-E ln p of points [N, d] by the normal law of their own mean and covariance, nats: what a flow must better."""
    return 0.5 * float(torch.logdet(2 * math.pi * math.e * torch.cov(x.double().T)))


@torch.no_grad()
def representation(generator: DensityGenerator, x: Tensor, rotation: AffineGenerator, angle: float = 1.0) -> dict[str, float]:
    """How the latent state z(x) = Phi^-1(x, E[p | x]) answers when the data turn by an angle R, in radians, in the plane.

    turning: E|z(R x) - R z(x)|^2 / E|z|^2; 0 where the representation turns with its data, 2 - 2 cos(angle) where it stays.
    leakage: the change of the invariants, which are the inner products of the latent's planar vectors:
        E|i(z(R x)) - i(z(x))|^2 / (2 Var i), their mean; 0 where a rotation acts on its own subspace alone, 1 where the
        invariants of a turned datum are no nearer than those of another one.
    """
    before, after = (generator.latent(y) for y in (x, rotation.move(x, x, angle)[0]))
    expected, found = torch.cat(rotation.move(*before, angle), 1).double(), torch.cat(after, 1).double()
    turning = mean((found - expected).square().sum(1)) / mean(expected.square().sum(1))
    here, there = _invariants(torch.cat(before, 1).double()), _invariants(found)
    return {"turning": turning, "leakage": mean((there - here).square().mean(0) / (2 * here.var(0)))}


def _invariants(latent: Tensor) -> Tensor:
    """|v_i|^2 and v_i . v_j of the planar vectors v of a latent state, [N, 2 m] -> [N, m (m + 1) / 2]."""
    vectors = latent.reshape(len(latent), -1, 2)
    rows, columns = torch.triu_indices(*2 * [vectors.shape[1]])
    return (vectors @ vectors.mT)[:, rows, columns]


def statistics(values: Iterable[float]) -> dict[str, float | None]:
    """{mean, std, standard_error}; of one value the last two are unknown."""
    found = np.array(list(values), dtype=np.float64)
    std = float(found.std(ddof=1)) if len(found) > 1 else None
    return {"mean": float(found.mean()), "std": std, "standard_error": std and std / len(found) ** 0.5}


def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, float | None]:
    """`statistics` of the differences other - one of runs that share their seeds, data and test set."""
    return statistics(b - a for a, b in zip(one, other, strict=True))


def summary(runs: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]], measured: Iterable[str]) -> dict[str, Any]:
    """`statistics` of what was measured, and the `gain` of the bounds over the runs of another constraint."""
    gain = {key: paired([one[key] for one in runs], [one[key] for one in first]) for key in ("elbo", "bound")}
    return {**{key: statistics(one[key] for one in runs) for key in measured}, "gain": gain}


def compared(
    of: str,
    names: Sequence[str],
    sizes: Sequence[int],
    seeds: range,
    measured: Sequence[str],
    run: Callable[[Any, int, int], dict[str, Any]],
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row for each (name, size) under the key `of`: its runs and their `summary`; and the CPU seconds of a run.

    Args:
        names: what is compared, the first with each other one. sizes: of the training sets, 0: endless. seeds: of the runs.
        run: (name, size, seed) -> what is measured.
    """
    rows, seconds = [], {}
    for size in sizes:
        first: list[dict[str, Any]] = []
        for name in names:
            began = time.process_time()
            runs = [run(name, size, seed) for seed in seeds]
            seconds[f"{name}, {size or 'endless'}"] = (time.process_time() - began) / len(seeds)
            first = first or runs
            rows.append({of: name, "size": size, "runs": runs, **summary(runs, first, measured)})
    return rows, seconds


def curves(
    figure: Any, result: dict[str, Any], of: str, colours: Mapping[str, str], end: Callable[[dict[str, Any]], str]
) -> Iterator[tuple[Any, int]]:
    """A panel a size with the learning curves of its rows, a line a run: (axes, size), for what else belongs there.

    Args:
        of: the key of a row that says whose it is. end: what the legend says of a row.
    """
    sizes = list(dict.fromkeys(row["size"] for row in result["rows"]))
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False, sharey=True)[0], sizes, strict=True):
        for row in (row for row in result["rows"] if row["size"] == size):
            for number, one in enumerate(row["runs"]):
                steps, values = ([point[key] for point in one["curve"]] for key in ("step", "elbo"))
                axes.plot(steps, values, color=colours[row[of]], lw=1.2, label="" if number else end(row))
        yield axes, size
        axes.set(xlabel="updates")


def both_bounds(row: dict[str, Any]) -> str:
    """Where the runs of a constraint ended, for the legend."""
    return f"{row['constraint']}: {row['elbo']['mean']:.3f}, bound {row['bound']['mean']:.3f}"


def lines_of(result: dict[str, Any], measured: Iterable[str], of: str = "constraint") -> list[dict[str, Any]]:
    """A line a row: means and standard deviations, and the gain over the first one with its paired standard error.

    Args:
        of: the key of a row that says whose it is.
    """
    lines = []
    for row in result["rows"]:
        line = {"size": row["size"] or "endless", of: row[of]}
        for key in measured:
            line |= {key: row[key]["mean"], f"{key}_std": row[key]["std"]}
        for key, gain in row["gain"].items():
            line |= {f"{key}_gain": gain["mean"], f"{key}_gain_standard_error": gain["standard_error"]}
        lines.append({**line, "floor": result["floor"], "seeds": len(row["runs"]), "n": result["n"]})
    return lines


def write_table(lines: list[dict[str, Any]], output: Path) -> None:
    """Lines as a .csv, and a .md beside it."""
    import pandas as pd

    frame = pd.DataFrame(lines)
    write_text(output.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    write_text(output.with_suffix(".md"), frame.to_markdown(index=False, floatfmt=".4g", missingval="") + "\n")
