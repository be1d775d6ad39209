"""Coloured velocities without training: errors of few evaluations on the exact velocity of mixtures fitted to digits, against
the share g of the data's covariance that the noise has; and a search for the best spectrum of the noise and the best grid.

The velocities are exact, so that only the path and the solver err [theory 4.7]. The search is Nelder and Mead's; its result is
judged on other starts, and on other fits, than it saw.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, field, to_builtins
from torch import Tensor

from hamflow import draws, flows
from hamflow.data import sources
from hamflow.flows import HamiltonianFlow
from hamflow.laws.full_mixtures import FullMixture, coloured_root
from hamflow.registry import Count, Options, Positive, convert
from hamflow.report import style
from hamflow.sampling.learned import hand_made_grids
from hamflow.sampling.solvers import solve
from hamflow.studies import base

SAMPLER = "multistep"
Powers = tuple[Annotated[float, Meta(ge=0, le=1)], ...]


class Search(Options, kw_only=True, frozen=True):
    """Of the search. bands: numbers of the spectrum, between which ln c is linear in ln lambda; nfe: at which it is judged;
    trials: evaluated candidates at most, 0: no search; starts: for each candidate."""

    bands: Annotated[int, Meta(ge=2, le=16)] = 5
    nfe: Count = 9
    trials: Annotated[int, Meta(ge=0)] = 240
    starts: Count = 128


class Spec(Options, kw_only=True, frozen=True):
    """source: of the images or points; components, ridge: of each mixture, the ridge in units of the mean variance; fits: how
    many mixtures; powers: g; nfe: evaluations; starts: x_T of each mixture; precise: steps of rk4; search; seed."""

    source: str = "digits"
    components: Count = 20
    ridge: Positive = 0.02
    fits: Count = 3
    powers: Powers = (0.0, 0.25, 0.5, 0.75, 1.0)
    nfe: tuple[Count, ...] = (5, 9)
    starts: Count = 200
    precise: Count = 40
    search: Search = field(default_factory=Search)
    seed: Annotated[int, Meta(ge=0)] = 0


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Fit the mixtures, measure every power, and search."""
    spec = convert(Spec, values, "studies.colour")
    began = time.process_time()
    rows = _rows(spec.source)
    laws = [FullMixture.fit(rows, spec.components, spec.ridge, spec.seed + k) for k in range(spec.fits)]
    flow = flows.build("oscillation", alpha=1.0)  # of data at unit spread
    problems = [_Problem(law, flow, spec.precise) for law in laws]
    noise = [_noise(spec, "starts", k, rows.shape[1]) for k in range(spec.fits)]
    curves = []
    for power in spec.powers:
        fields = [problem.under(power, n) for problem, n in zip(problems, noise, strict=True)]
        curves.append({"power": power, "transport": base.rounded(np.array([f.transport for f in fields]))})
        for nfe in spec.nfe:
            grids = hand_made_grids(flow, nfe, lowest=(0.05, 0.1, 0.2), largest=(2.0, 3.0, 5.0, 10.0))
            errors = np.array([[f.error(grid) for grid in grids] for f in fields])  # [fits, grids], relative to the data
            best = int(np.sqrt(np.square(errors).mean(0)).argmin())
            curves[-1][str(nfe)] = {"best": base.rounded(errors[:, best]), "uniform": base.rounded(errors[:, 0])}
    result = {"kind": "colour", "spec": to_builtins(spec), "curves": curves}
    if spec.search.trials:
        result["search"] = _search(spec, problems, noise, flow)
    return result | {"training": {"cpu_seconds": time.process_time() - began}}


class _Field:
    """One exact velocity, and precise solutions from some starts."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], starts: Tensor, flow: HamiltonianFlow, precise: int):
        self.velocity, self.starts = velocity, starts
        self.ends = solve("rk4", velocity, starts, torch.linspace(flow.horizon, 0, precise + 1, dtype=torch.float64))
        self.transport = float((starts - self.ends).square().mean() / self.ends.square().mean())

    def errors(self, grid: Tensor) -> Tensor:
        """Root mean square over coordinates, [N]; the data have unit spread."""
        return (solve(SAMPLER, self.velocity, self.starts, grid) - self.ends).square().mean(1).sqrt()

    def error(self, grid: Tensor) -> float:
        """Root mean square over coordinates and starts."""
        return float(self.errors(grid).square().mean().sqrt())


class _Problem:
    """One law: its fields under noise of any spectrum."""

    def __init__(self, law: FullMixture, flow: HamiltonianFlow, precise: int):
        self.law, self.flow, self.precise = law, flow, precise
        self.spectrum = torch.linalg.eigvalsh(law.covariance)

    def under(self, factors: Tensor | float, noise: Tensor) -> _Field:
        root = coloured_root(self.law.covariance, factors)
        return _Field(self.law.velocity_under(self.flow, root), self.flow.terminal(noise @ root), self.flow, self.precise)


def _search(spec: Spec, problems: list[_Problem], noise: list[Tensor], flow: HamiltonianFlow) -> dict[str, Any]:
    """The spectrum and the grid that leave the smallest mean error on the first law, judged on the starts of all laws."""
    from scipy.optimize import minimize

    few = _noise(spec, "search", 0, noise[0].shape[1])[: spec.search.starts]
    seen: list[float] = []

    def candidate(numbers: np.ndarray, problem: _Problem) -> tuple[Tensor, Tensor]:
        return _spectrum(numbers[:-2], problem.spectrum), _warped(numbers[-2:], flow.horizon, spec.search.nfe)

    def loss(numbers: np.ndarray) -> float:
        factors, grid = candidate(numbers, problems[0])
        seen.append(float(problems[0].under(factors, few).errors(grid).mean()))
        return seen[-1]

    start = np.concatenate([np.linspace(0, 0.5, spec.search.bands) * _range(problems[0].spectrum), np.zeros(2)])
    simplex = np.vstack([start, start + np.diag(np.where(np.arange(len(start)) < spec.search.bands, 1.0, 0.5))])
    options = {"maxfev": spec.search.trials, "initial_simplex": simplex, "adaptive": True, "xatol": 1e-3, "fatol": 1e-5}
    found = minimize(loss, start, method="Nelder-Mead", options=options)
    judged = []
    for problem, starts in zip(problems, noise, strict=True):
        factors, grid = candidate(found.x, problem)
        judged.append(problem.under(factors, starts).error(grid))
    factors, grid = candidate(found.x, problems[0])
    return {
        "error": base.rounded(np.array(judged)),
        "loss": base.rounded(np.minimum.accumulate(seen)),
        "spectrum": base.rounded(problems[0].spectrum),
        "factors": base.rounded(factors.softmax(0) * len(factors)),
        "times": base.rounded(grid),
    }


def _spectrum(knots: np.ndarray, spectrum: Tensor) -> Tensor:
    """ln c of each eigenvalue, [D], from its values at evenly spaced ln lambda."""
    logarithms = spectrum.log().numpy()
    return torch.from_numpy(np.interp(logarithms, np.linspace(logarithms[0], logarithms[-1], len(knots)), knots))


def _range(spectrum: Tensor) -> float:
    return float((spectrum[-1] / spectrum[0]).log())


def _warped(warp: np.ndarray, horizon: float, nfe: int) -> Tensor:
    """Times from the horizon to 0 whose steps are proportional to exp(w_1 s + w_2 s^2), s in [-1, 1]: always decreasing."""
    s = torch.linspace(-1, 1, nfe, dtype=torch.float64) if nfe > 1 else torch.zeros(1, dtype=torch.float64)
    after = (float(warp[0]) * s + float(warp[1]) * s**2).softmax(0).cumsum(0)
    return horizon * torch.cat([torch.ones(1, dtype=torch.float64), 1 - after[:-1], torch.zeros(1, dtype=torch.float64)])


def _noise(spec: Spec, what: str, k: int, dims: int) -> Tensor:
    return torch.from_numpy(draws.generator(spec.seed, "colour", what, k).standard_normal((spec.starts, dims)))


def _rows(source: str) -> np.ndarray:
    """The data, centred and at unit spread, float64 [N, D]."""
    rows = sources.build(source, where="studies.colour.").read()[0]
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    rows -= rows.mean(0)
    return rows / np.sqrt(rows.var(0).mean())


def draw(result: dict[str, Any], output: Path) -> None:
    """Error against g; the spectra; the grid."""
    nfe, curves, found = result["spec"]["nfe"], result["curves"], result.get("search")
    with style.drawing(output, 9.6 if found else 4.4, 3.3) as figure:
        panels = figure.subplots(1, 3 if found else 1, squeeze=False)[0]
        powers = [curve["power"] for curve in curves]
        for number, (count, colour) in enumerate(zip(nfe, (style.INK, style.HAMILTONIAN, "#009E73", "#CC79A7"), strict=False)):
            for grid, dashes in (("best", "-"), ("uniform", "--")):
                errors = np.array([curve[str(count)][grid] for curve in curves])
                mean, spread = np.sqrt(np.square(errors).mean(1)), errors.std(1, ddof=min(1, errors.shape[1] - 1))
                label = f"{count} evaluations, {'best' if grid == 'best' else 'even'} grid"
                panels[0].plot(powers, mean, dashes, marker="os^D"[number], color=colour, label=label)
                if grid == "best":
                    error = spread / errors.shape[1] ** 0.5
                    panels[0].fill_between(powers, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        panels[0].set(xlabel="power $g$ of the covariance", ylabel="error / spread of the data", ylim=(0, None))
        if found:
            error = float(np.sqrt(np.square(found["error"]).mean()))
            searched = result["spec"]["search"]["nfe"]
            panels[0].axhline(error, color="#D55E00", linestyle=":", label=f"{searched} evaluations, searched")
            spectrum, factors = np.array(found["spectrum"]), np.array(found["factors"])
            panels[1].loglog(spectrum, factors, ".-", color="#D55E00", label="searched")
            for power in (0.5, 0.75):
                panels[1].loglog(spectrum, spectrum**power / (spectrum**power).mean(), "--", label=f"$g$ = {power}")
            panels[1].set(xlabel=r"variance $\lambda$ of the data", ylabel="variance $c$ of the velocity")
            times = np.array(found["times"])
            panels[2].plot(times, "o-", color="#D55E00", label="searched")
            panels[2].plot(np.linspace(times[0], 0, len(times)), "--", color=style.INK, label="even")
            panels[2].set(xlabel="evaluation", ylabel="time $t$")
            panels[1].legend()
            panels[2].legend()
        panels[0].legend(fontsize=7, handlelength=3)
