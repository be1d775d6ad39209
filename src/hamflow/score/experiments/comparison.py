"""Denoising, implicit, sliced and Hamiltonian score matching at equal processor time and at equal steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from hamflow.score import direct, draws
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.score.experiments import base, mixture
from hamflow.score.settings import HamiltonianSettings

WARM_UP = 30  # steps by which the time of a step is measured


@dataclass(frozen=True)
class Spec(mixture.Spec):
    """Besides the keys of the experiment `mixture`, which are those of Hamiltonian score matching:
    seeds: how many runs;
    forms: {form of the velocity predictor: settings beside `hamiltonian`}, a method each;
    sigmas: of denoising; learning_rate: of the methods without critic; batch: of all;
    horizon, times, samples: of the discrepancy that is reported."""

    seeds: int = 5
    hamiltonian: dict[str, Any] = field(default_factory=dict)
    forms: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"scaled": {}, "residual": {"critic_steps": 1, "learning_rate": 3e-3}}
    )
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.3)
    learning_rate: float = 3e-3
    batch: int = 256
    horizon: float = 0.6
    times: int = 6
    samples: int = 10_000


def run(values: dict[str, Any]) -> dict[str, Any]:
    """A row for each (method, budget): exact score error and discrepancy, mean and standard deviation over
    the seeds."""
    spec = base.read(Spec, values)
    steps = HamiltonianSettings.from_mapping(spec.hamiltonian).steps
    losses = {f"dsm@sigma={sigma:g}": direct.denoising(sigma) for sigma in spec.sigmas}
    losses |= {"ism": direct.implicit, "ssm": direct.sliced}
    seeds, rows, seconds = range(spec.seed, spec.seed + spec.seeds), [], 0.0
    for form, settings in spec.forms.items():  # the first form's time is the budget of all
        own = replace(spec, form=form, hamiltonian={**spec.hamiltonian, **settings, "steps": steps})
        runs = [_hamiltonian(own, seed) for seed in seeds]
        rows.append(_row(f"hsm@form={form}", "steps", runs))
        took = float(np.median([run["cpu_seconds"] for run in runs]))
        if seconds:
            count = max(1, round(steps * seconds / took))
            longer = replace(own, hamiltonian={**own.hamiltonian, "steps": count})
            runs = [_hamiltonian(longer, seed) for seed in seeds]
        seconds = seconds or took
        rows.append(_row(f"hsm@form={form}", "time", runs))
    for name, loss in losses.items():
        for budget, count in (("steps", steps), ("time", max(1, round(seconds / _seconds_a_step(spec, loss))))):
            runs = [_direct(spec, loss, count, seed) for seed in seeds]
            rows.append(_row(name, budget, runs))
    fisher = base.fisher_information(spec.law(), spec.evaluation, spec.seed)
    return {
        "kind": "comparison",
        "spec": spec.as_dict(),
        "rows": rows,
        "fisher_information": fisher,
        "cpu_seconds": seconds,
        "n": spec.samples,
    }


def _hamiltonian(spec: Spec, seed: int) -> dict[str, Any]:
    training = mixture.learner(spec, seed)
    return _measure(spec, lambda: training.train(), lambda: training.average["force"], training.settings.steps, seed)


def _direct(spec: Spec, loss: direct.Loss, steps: int, seed: int) -> dict[str, Any]:
    settings = direct.DirectSettings(steps, spec.batch, spec.learning_rate)
    found: list[nn.Module] = []

    def train() -> None:
        found.append(direct.train_directly(spec.score_field(2 * seed), loss, spec.law().sample, settings, seed))

    return _measure(spec, train, lambda: found[0], steps, seed)


def _measure(spec: Spec, train: Callable[[], None], trained: Callable[[], nn.Module], steps: int, seed: int) -> dict[str, Any]:
    began = time.process_time()
    train()
    seconds = time.process_time() - began
    score = trained()
    found = hamiltonian_score_discrepancy(
        base.in_double(score),
        spec.law().sample(spec.samples, draws.generator(spec.seed, base.DISCREPANCY)),
        np.linspace(spec.horizon / spec.times, spec.horizon, spec.times),
        estimator="features",
        seed=spec.seed,
    )
    error, _ = base.score_error(spec.law(), score, spec.evaluation, spec.seed)
    return {
        "seed": seed,
        "steps": steps,
        "cpu_seconds": seconds,
        "score_error": error,
        "hsd": found.average,
        "hsd_standard_error": found.average_standard_error,
    }


def _row(method: str, budget: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "budget": budget, "steps": runs[0]["steps"], "runs": runs}
    for key in ("score_error", "hsd", "cpu_seconds"):
        values = np.array([run[key] for run in runs])
        row[key] = {"mean": float(values.mean()), "std": float(values.std(ddof=1)) if len(values) > 1 else None}
    return row


def _seconds_a_step(spec: Spec, loss: direct.Loss) -> float:
    settings = direct.DirectSettings(WARM_UP, spec.batch, spec.learning_rate)
    direct.train_directly(spec.score_field(0), loss, spec.law().sample, settings, 0)  # first calls are slower
    began = time.process_time()
    direct.train_directly(spec.score_field(0), loss, spec.law().sample, settings, 0)
    return (time.process_time() - began) / WARM_UP
