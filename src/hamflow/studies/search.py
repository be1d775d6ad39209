"""Search of force fields without training: the colour of the noise and the time grid that leave the smallest error of few
evaluations on the exact velocity of mixtures fitted to data.

Optuna's tree-structured Parzen estimator proposes the candidates, and its median rule gives up on a candidate after some of the
mixtures. The trials lie in an SQLite file beside the result, so that a search that was interrupted goes on to the same result,
and one that is asked for more trials goes on from those that it has. What is found is judged on other mixtures and other starts
than it was chosen on.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, field, structs, to_builtins
from torch import Tensor

from hamflow import draws, flows
from hamflow.errors import ConfigurationError
from hamflow.files import fingerprint
from hamflow.flows.colour import log_variances
from hamflow.registry import Count, Grid, Options, convert
from hamflow.report import style
from hamflow.sampling.budget import steps_for
from hamflow.sampling.grids import time_grid
from hamflow.sampling.proxy import ExactField, Proxy, ProxySpec
from hamflow.studies import base

RESUMES = True  # `run` takes a file, from which it goes on
BENDS = (-0.5, 1.5)  # of ln c by ln lambda within a band
LENGTHS = (-1.5, 1.5)  # of the logarithm of a step's length beside the first
KNOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # g, with even times: tried first


class Spec(Options, kw_only=True, frozen=True):
    """source: of the images or points; proxy: the mixtures on which is searched; judges: as many others, on which is judged;
    sampler, nfe: whose error it is; bands: numbers of the spectrum; lengths: numbers of the grid; trials: evaluated candidates;
    seed."""

    source: str = "digits"
    proxy: ProxySpec = field(default_factory=ProxySpec)
    judges: Count = 3
    sampler: str = "multistep"
    nfe: Count = 9
    bands: Annotated[int, Meta(ge=2, le=16)] = 5
    lengths: Annotated[int, Meta(ge=2, le=16)] = 4
    trials: Annotated[int, Meta(ge=1, le=100_000)] = 240
    seed: Annotated[int, Meta(ge=0)] = 0


class Candidate(Options, kw_only=True, frozen=True):
    """Options of a method: `flow.colour`, and `grid`."""

    colour: Any
    grid: Grid


def run(values: dict[str, Any], memory: Path | None = None) -> dict[str, Any]:
    """Search, and judge the best and the known candidates.

    Args:
        memory: an SQLite file of the trials, from which an interrupted search goes on; None: none.
    """
    spec = convert(Spec, values, "studies.search")
    began = time.process_time()
    x = base.standardised(spec.source)
    problem = _Problem(spec, Proxy(x, spec.proxy, spec.seed))
    found = _searched(spec, problem, memory)
    whole, best = [trial for trial in found.trials if trial.state.name == "COMPLETE"], problem.candidate(found.best_params)
    others = structs.replace(spec.proxy, fits=spec.judges)
    judge = _Problem(spec, Proxy(x, others, spec.seed, first=spec.proxy.fits))
    known = [Candidate(colour=g, grid="uniform") for g in KNOWN]
    return {
        "kind": "search",
        "spec": to_builtins(spec),
        "best": to_builtins(best),
        "errors": base.rounded(np.minimum.accumulate([trial.value for trial in whole])),
        "pruned": sum(trial.state.name == "PRUNED" for trial in found.trials),
        "known": [{"colour": one.colour, **judge.judged(one)} for one in known],
        **judge.judged(best),
        "spectrum": base.rounded(problem.spectrum),
        "factors": base.rounded(log_variances(best.colour, problem.spectrum).softmax(0) * len(problem.spectrum)),
        "training": {"cpu_seconds": time.process_time() - began},
    }


class _Problem:
    """The errors of candidates on some mixtures."""

    def __init__(self, spec: Spec, proxy: Proxy):
        self.spec, self.proxy, steps = spec, proxy, steps_for(spec.sampler, spec.nfe)
        if not isinstance(steps, int):
            raise ConfigurationError(
                f"`studies.search.sampler` = '{spec.sampler}' chooses its own steps", fix="multistep, heun, dpmpp_2m, ..."
            )
        self.steps = steps
        self.spectrum = self.flow(0.0).covariance.spectrum

    def flow(self, colour: Any) -> Any:
        """The oscillation of data at unit spread with noise of that colour."""
        flow = flows.build("oscillation_coloured", colour=colour, alpha=1.0).for_shape(self.proxy.shape)
        flow.measure(self.proxy.data)
        return flow

    def fields(self, candidate: Candidate) -> Iterator[ExactField]:
        return self.proxy.fields(self.flow(candidate.colour))

    def errors(self, candidate: Candidate, exact: ExactField) -> Tensor:
        """Root mean square over the coordinates, of each start, in units of the data's spread."""
        times = time_grid(exact.flow, self.steps, candidate.grid)
        return exact.errors(self.spec.sampler, times)

    def judged(self, candidate: Candidate) -> dict[str, Any]:
        """Of each mixture, the mean of the errors of the starts, and the root of their mean square."""
        errors = [self.errors(candidate, exact) for exact in self.fields(candidate)]
        mean, square = np.array([float(e.mean()) for e in errors]), np.array([float(e.square().mean()) for e in errors])
        return {"mean": base.rounded(mean), "root_mean_square": base.rounded(np.sqrt(square))}

    def candidate(self, numbers: dict[str, float]) -> Candidate:
        """What the numbers that Optuna chose mean."""
        width = float((self.spectrum.max() / self.spectrum.min()).log()) / (self.spec.bands - 1)
        bends = [numbers[f"bend{i}"] * width for i in range(self.spec.bands - 1)]
        lengths = np.exp([0.0, *(numbers[f"length{i}"] for i in range(1, self.spec.lengths))])
        left = 1 - np.cumsum(lengths)[:-1] / lengths.sum()
        return Candidate(colour=tuple(np.cumsum([0.0, *bends]).tolist()), grid=(1.0, *left.tolist(), 0.0))


def _distributions(spec: Spec) -> dict[str, Any]:
    number = _optuna().distributions.FloatDistribution
    bends = {f"bend{i}": number(*BENDS) for i in range(spec.bands - 1)}
    return bends | {f"length{i}": number(*LENGTHS) for i in range(1, spec.lengths)}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        fix = "pip install 'hamflow[search]'"
        raise ConfigurationError("optuna is not installed", why="it proposes the candidates", fix=fix) from error
    return optuna


def _searched(spec: Spec, problem: _Problem, path: Path | None) -> Any:
    """Optuna's study after all its trials. Each is a function of those before it that were finished, and of the seed."""
    optuna = _optuna()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = {key: value for key, value in to_builtins(spec).items() if key not in ("trials", "judges")}
    study = optuna.create_study(
        storage=f"sqlite:///{path}" if path else None,
        study_name=fingerprint(asked),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )
    numbers = _distributions(spec)
    while (done := len(_finished(study))) < spec.trials:
        if done < len(KNOWN):
            start = {name: KNOWN[done] if name.startswith("bend") else 0.0 for name in numbers}
            means = dict(enumerate(_means(problem, start)))
            made = optuna.trial.create_trial
            study.add_trial(made(params=start, distributions=numbers, value=means[max(means)], intermediate_values=means))
            continue
        study.sampler = optuna.samplers.TPESampler(seed=draws.key(spec.seed, "search", done) % 2**32, multivariate=True)
        trial = study.ask(numbers)
        for number, mean in enumerate(_means(problem, trial.params)):
            trial.report(mean, number)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, mean)
    return study


def _finished(study: Any) -> list[Any]:
    """The trials but for those that were interrupted."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _means(problem: _Problem, numbers: dict[str, float]) -> Iterator[float]:
    """The mean error of a candidate on the first mixture, on the first two, ..."""
    candidate, total = problem.candidate(numbers), 0.0
    for count, exact in enumerate(problem.fields(candidate), 1):
        total += float(problem.errors(candidate, exact).mean())
        yield total / count


def draw(result: dict[str, Any], output: Path) -> None:
    """The best error so far; the spectrum of the noise; the times; all beside known candidates."""
    best, judged = result["best"], result["known"]
    least = min(judged, key=lambda one: np.mean(one["mean"]))
    with style.drawing(output, 9.6, 3.3) as figure:
        panels = figure.subplots(1, 3)
        panels[0].plot(np.arange(1, len(result["errors"]) + 1), result["errors"], color=style.HAMILTONIAN, label="best so far")
        lines = (judged[0], ":", "$g$ = 0"), (least, "-.", f"$g$ = {least['colour']:g}"), (result, "--", "found")
        for one, look, label in lines:
            panels[0].axhline(np.mean(one["mean"]), color=style.INK, linestyle=look, linewidth=1, label=f"{label}, judged")
        panels[0].set(xlabel="trial that was not given up", ylabel="error / spread of the data", ylim=(0, None))
        spectrum, factors = np.array(result["spectrum"]), np.array(result["factors"])
        panels[1].loglog(spectrum, factors, ".-", color=style.HAMILTONIAN, label="found")
        for power, look in ((0.5, ":"), (1.0, "--")):
            known = spectrum**power / (spectrum**power).mean()
            panels[1].loglog(spectrum, known, look, color=style.INK, label=f"$g$ = {power:g}")
        panels[1].set(xlabel=r"variance $\lambda$ of the data", ylabel="variance $c$ of the velocity")
        share = np.linspace(0, 1, len(best["grid"]))
        panels[2].plot(share, best["grid"], "o-", color=style.HAMILTONIAN, label="found")
        panels[2].plot([0, 1], [1, 0], "--", color=style.INK, label="even")
        panels[2].set(xlabel="share of the steps", ylabel="$t / T$")
        for panel in panels:
            panel.legend(fontsize=7)
