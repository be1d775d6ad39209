"""The bridge between the two papers: a learned Hamiltonian density as the force field of a generative flow, and the Hamiltonian
score discrepancy as the test whether its potential U is the true potential, -log p, of the density that it makes.

A density is trained as in `multimodal`. Its U is a force field, and so is the score of its own density [theory 9.8].
"""

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import field, to_builtins
from torch import Tensor

from hamflow import draws, networks
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity
from hamflow.errors import ConfigurationError
from hamflow.metrics.points import w2
from hamflow.registry import Count, Positive, convert, some
from hamflow.report import style
from hamflow.sampling.solvers import solve
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.studies import base, multimodal
from hamflow.studies.densities import noise_like, write_table
from hamflow.training.fit import Batch, Objective, Samples, Turn, fitted

SHOWN = 600  # samples of a picture


class Spec(multimodal.Spec, kw_only=True, frozen=True):
    """Besides the keys of `multimodal`: network, regression: of the velocity predictor, the latter what differs from
    `ScoreTraining`; horizon, times, steps, probes: of the discrepancy, the last its samples; frozen: momenta of
    the density's own score; solver_steps: of Heun's method, under each step of the integrator."""

    network: base.Network = field(default_factory=lambda: {"kind": "mlp", "width": 64, "depth": 3})
    regression: Annotated[dict[str, Any], some(base.ScoreTraining)] = field(default_factory=lambda: {"learning_rate": 3e-3})
    horizon: Positive = 0.5
    times: Count = 3
    probes: Count = 2000
    frozen: Count = 32
    steps: Count = 8
    solver_steps: Count = 2


class LearnedFlow:
    """The force field of a learned density as a Hamiltonian generative flow: its motion backwards, from data to the base law.

    Leapfrog is motion at constant velocity between kicks, so that x_t is known at every t, not at the steps alone.

    Args:
        density: one that has a single Hamiltonian with leapfrog.
    Raises:
        ConfigurationError: another one.
    """

    def __init__(self, density: HamiltonianDensity):
        if len(density.flow.hamiltonians) != 1 or density.flow.scheme != "leapfrog":
            raise ConfigurationError(
                f"the bridge needs one Hamiltonian with leapfrog, got {len(density.flow.hamiltonians)} with "
                f"{density.flow.scheme}",
                why="a force field of a flow is one, and positions between steps are known for leapfrog",
                fix="`density: {hamiltonians: 1, scheme: leapfrog}`",
            )
        self.density = density
        self.hamiltonian: Hamiltonian = density.flow.hamiltonians[0]  # type: ignore[assignment]
        self.steps, self.step = density.flow.steps, float(density.flow.log_steps[0].detach().exp())
        self.horizon = self.steps * self.step

    @torch.no_grad()
    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        """p_0 from the encoder, [N, d]."""
        return self.density.encoder(x0 / self.density.unit, noise)[0]

    @torch.no_grad()
    def push(self, x0: Tensor, p0: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x_t, dx/dt), [N, d], data units, at times t [N] in [0, T]."""
        q, p, h = x0 / self.density.unit, p0, self.step
        position, velocity = torch.empty_like(q), torch.empty_like(q)
        for step in range(self.steps):
            p = p - h / 2 * self.hamiltonian.force(q)
            v = -self.hamiltonian.velocity(p)
            here = t >= step * h
            position[here] = (q + (t[:, None] - step * h) * v)[here]  # later steps overwrite it where t is larger
            velocity[here] = v[here]
            q = q + h * v
            p = p - h / 2 * self.hamiltonian.force(q)
        return position * self.density.unit, velocity * self.density.unit

    @torch.no_grad()
    def terminal(self, noise: Tensor) -> Tensor:
        """x_T, from unit normal noise [N, d]: the base law's positions."""
        return self.density.base.draw(noise, noise)[0] * self.density.unit


class Regression(Objective):
    """V(x_t, t) by regression on the velocities of a flow."""

    turns = (Turn("velocity", "network"),)

    def __init__(self, flow: LearnedFlow, network: torch.nn.Module):
        super().__init__()
        self.flow, self.network, self.unit = flow, network, flow.density.unit

    def velocity(self, x: Tensor, t: Tensor | float) -> Tensor:
        """V, [N, d], data units, in x's dtype."""
        label = torch.as_tensor(t, dtype=torch.float32).expand(len(x)) / self.flow.horizon
        return self.unit * self.network((x / self.unit).float(), label).to(x)

    def losses(self, turn: str, batch: Batch) -> Tensor:
        t = batch.draw.uniform("time").to(batch.x) * self.flow.horizon
        momenta = self.flow.couple(batch.x, batch.draw.normal("momentum", tuple(batch.x.shape[1:])).to(batch.x))
        x, velocity = self.flow.push(batch.x, momenta, t)
        return ((self.velocity(x, t) - velocity) / self.unit).square().mean(1)


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Discrepancies of the potential and of the density's own score, and samples by the velocity predictor of its flow."""
    spec = convert(Spec, values, "studies.bridge")
    law, began = spec.law(), time.process_time()
    generator = spec.trained()
    flow = LearnedFlow(generator.module)
    own = generator.sample(range(spec.probes), "direct", 1)[0]
    rows = [_row(spec, name, force, own) for name, force in _forces(spec, flow, own).items()]
    plan = convert(base.ScoreTraining, spec.regression, "regression")
    regression = Regression(flow, networks.build(spec.network, (law.dimension,), 0, spec.seed))
    predictor = fitted(regression, Samples(base.samples_of_training(law, plan, spec.seed).float()), plan, spec.seed)
    start = flow.terminal(noise_like(own[: spec.samples].float(), draws.generator(spec.seed, "bridge", "terminal"))[0])
    times = torch.linspace(flow.horizon, 0, flow.steps * spec.solver_steps + 1, dtype=torch.float64)
    with torch.no_grad():
        clouds = {
            "base law": start,
            "flow": generator.sample(range(spec.samples), "direct", 1)[0],
            "velocity predictor": solve("heun", predictor.velocity, start.double(), times),
        }
    fresh, other = (base.fresh_samples(law, spec.samples, spec.seed + k) for k in (1, 2))
    return {
        "kind": "bridge",
        "spec": to_builtins(spec),
        "rows": rows,
        "w2": {name: w2(cloud, fresh) for name, cloud in clouds.items()} | {"fresh draws": w2(other, fresh)},
        "clouds": {name: base.rounded(cloud[:SHOWN], 4) for name, cloud in clouds.items()},
        "n": spec.samples,
        "probes": spec.probes,
        "training": {"cpu_seconds": time.process_time() - began},
    }


def _forces(spec: Spec, flow: LearnedFlow, x: Tensor) -> dict[str, Any]:
    """No force, the score of the data, that of the learned density, and the force of U, in the unit nearest to the latter.

    The density's own score is the gradient of its bound at fixed momenta: too few of them leave noise in it.
    """
    density, law = flow.density, spec.law()
    rng = draws.generator(spec.seed, "bridge", "frozen")
    noise = torch.from_numpy(rng.standard_normal((spec.frozen, 1, law.dimension))).float()

    def own(x: Tensor, t: Any = 0.0) -> Tensor:
        with torch.enable_grad():
            y = x.detach().float().requires_grad_()
            bound = density.bound(y, noise.expand(-1, len(y), -1))
            return torch.autograd.grad(bound.sum(), y)[0].to(x)

    @torch.no_grad()
    def pull(x: Tensor, t: Any = 0.0) -> Tensor:
        return flow.hamiltonian.force(x.float() / density.unit).to(x)

    score, force = own(x), pull(x)
    unit = float((score * force).sum() / force.square().sum())
    none = lambda x, t=0.0: torch.zeros_like(x)  # noqa: E731
    return {
        "none": none,
        "score of the data": lambda x, t: law.score(x),
        "its own score": own,
        "U": lambda x, t: unit * pull(x),
    }


def _row(spec: Spec, name: str, force: Any, x: Tensor) -> dict[str, Any]:
    """The discrepancy of a force on samples of the learned density."""
    times = np.linspace(spec.horizon / spec.times, spec.horizon, spec.times)
    found = hamiltonian_score_discrepancy(
        force, x, times, estimator="features", seed=spec.seed, steps=spec.steps, scheme="leapfrog"
    )
    return {
        "force": name,
        "hsd": found.average,
        "standard_error": found.average_standard_error,
        "integration_error": found.average_integration_error,
        "strength": float(force(x, 0.0).square().sum(1).mean()),
    }


def draw(result: dict[str, Any], output: Path) -> None:
    """The discrepancies, and the samples by the flow and by the velocity predictor of its force field."""
    with style.drawing(output, 3.2 * (1 + len(result["clouds"])), 3.4) as figure:
        bars, *panels = figure.subplots(1, 1 + len(result["clouds"]))
        names = [row["force"] for row in result["rows"]]
        hsd, errors = ([row[key] for row in result["rows"]] for key in ("hsd", "standard_error"))
        bars.errorbar(hsd, range(len(names)), xerr=errors, fmt="o", color=style.START, capsize=3)
        bars.set_yticks(range(len(names)), names)
        bars.set_ylim(-0.5, len(names) - 0.5)
        bars.axvline(0, color=style.INK, linewidth=0.8)
        bars.set_xlabel("Hamiltonian score discrepancy")
        for axes, (name, cloud) in zip(panels, result["clouds"].items(), strict=True):
            axes.plot(*np.asarray(cloud).T, ".", color=style.END, markersize=2)
            axes.set(aspect="equal", xlim=(-4, 4), ylim=(-4, 4), title=f"{name}: $W_2$ {result['w2'][name]:.3f}")
        figure.suptitle(
            f"$W_2$ of fresh draws {result['w2']['fresh draws']:.3f}, n = {result['n']}; discrepancies on {result['probes']} "
            "samples of the learned density",
            fontsize=10,
        )


def tabulate(result: dict[str, Any], output: Path) -> None:
    """A line a force."""
    write_table([{**row, "n": result["probes"]} for row in result["rows"]], output)
