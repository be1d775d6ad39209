"""Coloured velocities without training: errors of few evaluations on the exact velocity of mixtures fitted to data, against
the share g of the data's covariance that the noise has.

The velocities are exact, so that only the path and the solver err [theory 4.7].
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, field, to_builtins

from hamflow import flows
from hamflow.registry import Count, Options, convert
from hamflow.report import style
from hamflow.sampling.learned import hand_made_grids
from hamflow.sampling.proxy import Proxy, ProxySpec
from hamflow.studies import base

SAMPLER = "multistep"
Powers = tuple[Annotated[float, Meta(ge=0, le=1)], ...]


class Spec(Options, kw_only=True, frozen=True):
    """source: of the images or points; proxy: the mixtures; powers: g; nfe: evaluations; seed."""

    source: str = "digits"
    proxy: ProxySpec = field(default_factory=ProxySpec)
    powers: Powers = (0.0, 0.25, 0.5, 0.75, 1.0)
    nfe: tuple[Count, ...] = (5, 9)
    seed: Annotated[int, Meta(ge=0)] = 0


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Fit the mixtures, and measure every power: root mean square errors over coordinates and starts, of each mixture."""
    spec = convert(Spec, values, "studies.colour")
    began = time.process_time()
    proxy, curves = Proxy(base.standardised(spec.source), spec.proxy, spec.seed), []
    for power in spec.powers:
        flow = flows.build("oscillation_coloured", colour=power, alpha=1.0)  # of data at unit spread
        fields = list(proxy.fields(flow))
        curve = {"power": power, "transport": base.rounded(np.array([exact.transport for exact in fields]))}
        for nfe in spec.nfe:
            grids = hand_made_grids(flow, nfe, lowest=(0.05, 0.1, 0.2), largest=(2.0, 3.0, 5.0, 10.0))
            squares = np.array([[float(f.errors(SAMPLER, grid).square().mean()) for grid in grids] for f in fields])
            errors, best = np.sqrt(squares), int(squares.mean(0).argmin())  # [mixtures, grids]
            curve[str(nfe)] = {"best": base.rounded(errors[:, best]), "uniform": base.rounded(errors[:, 0])}
        curves.append(curve)
    seconds = time.process_time() - began
    return {"kind": "colour", "spec": to_builtins(spec), "curves": curves, "training": {"cpu_seconds": seconds}}


def draw(result: dict[str, Any], output: Path) -> None:
    """Error against g."""
    curves = result["curves"]
    with style.drawing(output, 4.4, 3.3) as figure:
        axes, powers = figure.subplots(), [curve["power"] for curve in curves]
        colours = (style.INK, style.HAMILTONIAN, "#009E73", "#CC79A7")
        for number, (count, colour) in enumerate(zip(result["spec"]["nfe"], colours, strict=False)):
            for grid, dashes in (("best", "-"), ("uniform", "--")):
                errors = np.array([curve[str(count)][grid] for curve in curves])
                mean, spread = np.sqrt(np.square(errors).mean(1)), errors.std(1, ddof=min(1, errors.shape[1] - 1))
                label = f"{count} evaluations, {'best' if grid == 'best' else 'even'} grid"
                axes.plot(powers, mean, dashes, marker="os^D"[number], color=colour, label=label)
                if grid == "best":
                    error = spread / errors.shape[1] ** 0.5
                    axes.fill_between(powers, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="power $g$ of the covariance", ylabel="error / spread of the data", ylim=(0, None))
        axes.legend(fontsize=7, handlelength=3)
