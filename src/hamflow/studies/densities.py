"""What the studies of densities share: how one is trained, its learning curve, and statistics over runs of several seeds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow.files import write_text
from hamflow.methods.base import Facts
from hamflow.methods.equivariant import DensityGenerator, EquivariantFlow
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


def train(
    method: EquivariantFlow, plan: Training, data: Tensor, seed: int, unit: float, test: Tensor | None = None, reports: int = 1
) -> tuple[DensityGenerator, list[dict[str, Any]]]:
    """A trained density, and its -ELBO on test data in the course of the training, {step, elbo}, none without test data.

    Args:
        data: [N, d]; fewer than a training has updates are met again and again. unit: their spread, data units.
        test: [M, d]. reports: points of the curve.
    """
    facts = Facts(name="points", shape=tuple(data.shape[1:]), classes=0, sigma_data=unit, box=(-1.0, 1.0), network={})
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


def statistics(values: Iterable[float]) -> dict[str, float | None]:
    """{mean, std, standard_error}; of one value the last two are unknown."""
    found = np.array(list(values), dtype=np.float64)
    std = float(found.std(ddof=1)) if len(found) > 1 else None
    return {"mean": float(found.mean()), "std": std, "standard_error": std and std / len(found) ** 0.5}


def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, float | None]:
    """`statistics` of the differences other - one of runs that share their seeds, data and test set."""
    return statistics(b - a for a, b in zip(one, other, strict=True))


def write_table(lines: list[dict[str, Any]], output: Path) -> None:
    """Lines as a .csv, and a .md beside it."""
    import pandas as pd

    frame = pd.DataFrame(lines)
    write_text(output.with_suffix(".csv"), frame.to_csv(index=False, float_format="%.4g", lineterminator="\n"))
    write_text(output.with_suffix(".md"), frame.to_markdown(index=False, floatfmt=".4g", missingval="") + "\n")
