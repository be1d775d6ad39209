"""The density of a mixture by a Hamiltonian flow: what it learned, its potential U(q) beside the modes of the data, and samples
on their way from the base law, Hamiltonian by Hamiltonian.

The first claim of Equivariant Hamiltonian Flows (arXiv:1909.13739): a potential with several minima, at the modes [theory 9.7].
"""

import copy
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, field, to_builtins
from scipy.optimize import minimize

from hamflow import draws
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.equivariant import DensityGenerator, EquivariantFlow
from hamflow.metrics.points import w2
from hamflow.registry import Count, Options, convert, some
from hamflow.report import style
from hamflow.studies import base
from hamflow.studies.densities import DensityTraining, mean, train

FOUR = {"weights": [0.25] * 4, "means": [[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]], "sds": [0.5] * 4}
# One potential, so that the question has one answer, and a base law that is wider than the modes (theory 9.7)
ONE_WIDE = {"kinetic": "quadratic", "features": "plain", "hamiltonians": 1, "steps": 8, "step": 0.2, "spread": 1.5}
MARGIN = 4.0  # of the pictures beyond the outermost means, in standard deviations
SHOWN = 600  # samples of a picture


class Spec(Options, kw_only=True, frozen=True):
    """mixture: {weights, means, sds}, in the plane; density: what differs from `EquivariantFlow`; training: what differs from
    `DensityTraining`; seed; samples: of the distance; momenta: of the density; grid: points along a side."""

    mixture: dict[str, Any] = field(default_factory=lambda: dict(FOUR))
    density: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=lambda: dict(ONE_WIDE))
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=lambda: {"train_kimg": 2048.0})
    seed: Annotated[int, Meta(ge=0)] = 0
    samples: Count = 1000
    momenta: Count = 64
    grid: Annotated[int, Meta(ge=5)] = 81

    def law(self) -> GaussianMixture:
        """The mixture. Raises ConfigurationError if it is none, or not in the plane."""
        try:
            law = GaussianMixture(**self.mixture)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"`mixture` is no law: {error}") from error
        if law.dimension != 2:
            raise ConfigurationError(f"`mixture` has {law.dimension} dimensions, but is drawn in the plane")
        return law

    def trained(self) -> DensityGenerator:
        """The density, trained on endless data."""
        law = self.law()
        method = convert(EquivariantFlow, self.density, "density")
        plan = convert(DensityTraining, self.training, "training")
        data = base.samples_of_training(law, plan, self.seed).float()
        return train(method, plan, data, self.seed, base.spread_of(law))[0]


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train, and tabulate density, potentials and samples."""
    spec = convert(Spec, values, "studies.multimodal")
    law, began = spec.law(), time.process_time()
    generator = spec.trained()
    seconds = time.process_time() - began
    edge = float((law.means.abs() + MARGIN * law.sds).max())
    axis = torch.linspace(-edge, edge, spec.grid, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).reshape(-1, 2).float()
    learned = generator.log_density(points, spec.momenta).double().exp().reshape(spec.grid, spec.grid)
    potential = effective_potential(generator.module, points).double().reshape(spec.grid, spec.grid)
    minima = refined(generator.module, local_minima(axis.numpy(), potential.numpy()))
    test = base.fresh_samples(law, 4 * spec.samples, spec.seed).float()
    fresh = [base.fresh_samples(law, spec.samples, spec.seed + k).numpy() for k in (1, 2)]
    drawn = generator.sample(range(spec.samples), "direct", 1)[0].numpy()
    reached = [float(np.linalg.norm(minima - mode, axis=1).min()) if len(minima) else None for mode in law.means.numpy()]
    return {
        "kind": "multimodal",
        "spec": to_builtins(spec),
        "axis": base.rounded(axis),
        "exact": base.rounded(law.log_prob(points).exp().reshape(spec.grid, spec.grid), 4),
        "learned": base.rounded(learned, 4),
        "potential": base.rounded(potential - potential.min(), 4),
        "modes": law.means.tolist(),
        "minima": base.rounded(minima),
        "distance_of_modes": reached,
        "integral": float(learned.sum() * (axis[1] - axis[0]) ** 2),
        "gap": mean(law.log_prob(test) - generator.log_density(test, spec.momenta)),
        "w2": w2(drawn, fresh[0]),
        "w2_of_fresh_draws": w2(*fresh),
        "clouds": [base.rounded(cloud, 4) for cloud in clouds(generator.module, min(SHOWN, spec.samples))],
        "n": spec.samples,
        "training": {"cpu_seconds": seconds},
    }


@torch.no_grad()
def effective_potential(density: Any, x: torch.Tensor) -> torch.Tensor:
    """The mean of U_i(x), [N], each weighted with the time for which the flow moves under it; x in data units."""
    times = density.flow.log_steps.exp()
    energies = torch.stack([hamiltonian.potential(x / density.unit) for hamiltonian in density.flow.hamiltonians])
    return (times[:, None] * energies).sum(0) / times.sum()


def local_minima(axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Points (x, y) of a grid that are lower than their eight neighbours, [M, 2]; row i of the values is y = axis[i]."""
    inner = values[1:-1, 1:-1]
    lower = np.ones_like(inner, dtype=bool)
    for i, j in np.ndindex(3, 3):
        if (i, j) != (1, 1):
            lower &= inner < values[i : i + inner.shape[0], j : j + inner.shape[1]]
    rows, columns = np.nonzero(lower)
    return np.stack([axis[columns + 1], axis[rows + 1]], 1)


def refined(density: Any, minima: np.ndarray) -> np.ndarray:
    """Minima of the effective potential between the points of the grid, from those on it, [M, 2]."""
    weights = density.flow.log_steps.detach().exp().double()
    weights = weights / weights.sum()
    potentials = copy.deepcopy([hamiltonian.potential for hamiltonian in density.flow.hamiltonians])

    def value_and_slope(point: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(point)[None] / density.unit
        with torch.no_grad():
            value = sum(float(w * potential.double()(x)) for w, potential in zip(weights, potentials, strict=True))
            slope = sum(w * potential.double().gradient(x)[0] for w, potential in zip(weights, potentials, strict=True))
        return value, slope.numpy() / density.unit

    found = [minimize(value_and_slope, point, jac=True).x for point in minima.astype(np.float64)]
    return np.stack(found) if found else minima


@torch.no_grad()
def clouds(density: Any, count: int) -> list[torch.Tensor]:
    """Positions [count, 2] of samples: of the base law, and after each Hamiltonian."""
    rng, like = draws.generator(0, "clouds"), next(density.parameters())
    noise = [torch.from_numpy(rng.standard_normal((count, 2))).to(like) for _ in range(2)]
    q, p = density.base.draw(*noise)
    path = [q, *(q for _, q, _ in density.flow.visited(q, p))]
    return [cloud * density.unit for cloud in path[:: density.flow.steps]]


def draw(result: dict[str, Any], output: Path) -> None:
    """The law, the learned density, the potential with its minima and the modes; below, the samples step by step."""
    axis, stages = np.asarray(result["axis"]), [np.asarray(cloud) for cloud in result["clouds"]]
    columns = max(3, len(stages))
    with style.drawing(output, 3.3 * columns, 6.4) as figure:
        panels = figure.subplots(2, columns, squeeze=False, sharex=True, sharey=True)
        exact, learned = (np.asarray(result[key]) for key in ("exact", "learned"))
        for axes, values, title in zip(
            panels[0], (exact, learned), ("density $p$", f"learned (integral {result['integral']:.3f})"), strict=False
        ):
            axes.contourf(axis, axis, values, levels=np.linspace(0, exact.max() * 1.05, 14), cmap="Blues", extend="max")
            axes.set_title(title)
        potential = np.asarray(result["potential"])
        panels[0, 2].contourf(axis, axis, np.minimum(potential, np.quantile(potential, 0.8)), levels=18, cmap="viridis")
        panels[0, 2].plot(*np.asarray(result["modes"]).T, "X", mfc="white", mec=style.INK, label="modes of the data")
        if result["minima"]:
            panels[0, 2].plot(*np.asarray(result["minima"]).T, "o", mfc="none", color=style.HAMILTONIAN, label="minima of $U$")
        panels[0, 2].legend(loc="upper right", labelcolor=style.INK, frameon=True)
        panels[0, 2].set_title("potential $U(q)$")
        for axes, cloud, number in zip(panels[1], stages, range(len(stages)), strict=False):
            axes.plot(*cloud.T, ".", color=style.time_colour(1 - number / max(len(stages) - 1, 1)), markersize=2)
            axes.set_title(f"after $H_{number}$" if number else "base law")
        for axes in (*panels[0, 3:], *panels[1, len(stages) :]):
            axes.set_axis_off()
        for axes in panels.ravel():
            axes.set(aspect="equal", xlim=axis[[0, -1]], ylim=axis[[0, -1]])
            axes.grid(False)
        far = "no minima" if None in result["distance_of_modes"] else f"{max(result['distance_of_modes']):.2f}"
        figure.suptitle(
            f"farthest mode from a minimum: {far}; $W_2$ {result['w2']:.3f}, of fresh draws "
            f"{result['w2_of_fresh_draws']:.3f}, n = {result['n']}; gap of the bound {result['gap']:.3f} nats",
            fontsize=10,
        )
