"""Hamiltonian score matching: a score network against a velocity predictor (arXiv:2410.20470)."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hamflow import draws
from hamflow.dynamics import simulate
from hamflow.errors import CheckpointError, DivergenceError
from hamflow.files import load_tensors, save_tensors
from hamflow.score.objectives import gain
from hamflow.score.settings import HamiltonianSettings
from hamflow.training.adam import Adam

LOG_SPAN = 100.0  # the log-uniform law of times covers [T / 100, T]


@dataclass
class Trajectories:
    """End points of a batch: times [N], positions and velocities [N, *dims]."""

    t: Tensor
    x: Tensor
    v: Tensor


class HamiltonianScoreMatching:
    """min over the score, max over the velocity predictor, of E w(t) (2 V(x_t, t) . v_t - |V(x_t, t)|^2).

    The networks are trained in place. Each update's random numbers are a function of (seed, step), so that a
    run that is killed and resumed equals one that was not, bit for bit.

    Args:
        force: module (x, t) -> F, the score being learned.
        critic: module (x, t, force) -> V; `force` is passed for predictors that use it, with constant
            weights.
        source: (n, numpy generator) -> n samples of the data, [n, *dims].
        settings: see `HamiltonianSettings`.
        seed: of all random numbers.
    """

    def __init__(
        self,
        force: nn.Module,
        critic: nn.Module,
        source: Callable,
        settings: HamiltonianSettings,
        seed: int = 0,
    ):
        self.force, self.critic, self.source, self.settings, self.seed = force, critic, source, settings, seed
        self.average = {"force": copy.deepcopy(force), "critic": copy.deepcopy(critic)}
        self.optimizers = {
            "force": Adam(force.parameters(), settings.learning_rate, betas=settings.betas),
            "critic": Adam(critic.parameters(), settings.critic_learning_rate, betas=settings.betas),
        }
        self.step = 0
        self._like = next(force.parameters())

    def train(
        self,
        until: int | None = None,
        state: str | Path | None = None,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Continue to score update number `until` (default: all of `settings.steps`).

        Args:
            state: file of the resumable state; read if it is there, written every `state_every` updates and
                at the end.
            report: called after each score update with {step, gain, critic_gain, force_norm, critic_norm}.
        Raises:
            DivergenceError: the min-max left the finite numbers; both networks, and `state`, are then as last
                saved.
            CheckpointError: `state` belongs to another run.
        """
        if state is not None and Path(state).exists():
            self.load(*load_tensors(state))
        good = self.state()
        until = self.settings.steps if until is None else until
        while self.step < until:
            try:
                line = self._update()
            except DivergenceError as error:
                self.load(*good)
                kept = f"the networks are again those of update {self.step}"
                if state is not None:
                    save_tensors(state, *good)
                    kept += f", kept in {state}"
                raise DivergenceError(error.what, why=error.why, fix=f"{error.fix}; {kept}") from None
            if report is not None:
                report(line)
            if self.step % self.settings.state_every == 0 or self.step == until:
                good = self.state()
                if state is not None:
                    save_tensors(state, *good)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, metadata) from which `load` continues exactly."""
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= {f"{name}/{key}": value.detach().clone() for key, value in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"adam/{name}/{index}/{key}": value.detach().clone() for key, value in moments.items()}
        return tensors, {"step": self.step, "seed": self.seed, "settings": self.settings.as_dict()}

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Continue from a state. Raises CheckpointError if it is of other settings, another seed or other
        networks."""
        mine = {"seed": self.seed, "settings": self.settings.as_dict()}
        if any(metadata.get(key) != value for key, value in mine.items()):
            raise CheckpointError(
                "the saved state of Hamiltonian score matching is of another seed or of other settings",
                fix="delete it, or give its own settings back",
            )
        for name, module in self._modules().items():
            try:
                module.load_state_dict(_below(tensors, f"{name}/"))
            except RuntimeError as error:
                raise CheckpointError(f"the saved state is of other networks ({error})", fix="delete it") from error
        for name, optimizer in self.optimizers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for path, value in _below(tensors, f"adam/{name}/").items():
                index, key = path.split("/")
                moments.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        self.step = metadata["step"]

    def gain(self, pushed: Trajectories) -> Tensor:
        """2 V . v_t - |V|^2, [N]; the critic sees the force with constant weights (envelope theorem, SPEC
        1.5)."""
        constant = {name: value.detach() for name, value in self.force.named_parameters()}

        def frozen(x: Tensor, t: float | Tensor) -> Tensor:
            return torch.func.functional_call(self.force, constant, (x, t))

        return gain(self.critic(pushed.x, pushed.t, frozen), pushed.v)

    def weight(self, t: Tensor) -> Tensor:
        """w(t), [N]."""
        if self.settings.weight == "constant":
            return torch.ones_like(t)
        return 1 / (t.square() + self.settings.weight_floor * self.settings.horizon**2)

    def draw(self, *keys: int) -> Trajectories:
        """Start points and durations of a batch, a function of (seed, keys): x_0 from the data, v_0
        normal."""
        rng, n = draws.generator(self.seed, "training", "hsm", *keys), self.settings.batch
        x = self.source(n, rng).to(self._like)
        v = draws.normal_like(rng, x)
        u = torch.from_numpy(rng.random(n)).to(self._like)
        t = self.settings.horizon * (u if self.settings.time_law == "uniform" else LOG_SPAN ** (u - 1))
        if self.settings.antithetic:
            t, x, v = torch.cat([t, t]), torch.cat([x, x]), torch.cat([v, -v])
        return Trajectories(t, x, v)

    def push(self, start: Trajectories) -> Trajectories:
        """Move each sample for its own duration. Raises DivergenceError if that leads out of bounds."""
        settings = self.settings
        x, v = simulate(self.force, start.x, start.v, start.t, settings.integration_steps, settings.scheme)
        speed = float(v.detach().square().mean().sqrt())
        if not speed <= settings.runaway or not math.isfinite(float(x.detach().square().mean())):
            raise self._diverged(
                "the trajectories run away",
                f"root mean square velocity {speed:.3g} (expected near 1, limit {settings.runaway:g})",
                start.t,
            )
        return Trajectories(start.t, x, v)

    def _update(self) -> dict[str, Any]:
        rate = 0.5 * (1 + math.cos(math.pi * self.step / self.settings.steps)) if self.settings.decay == "cosine" else 1.0
        for k in range(self.settings.critic_steps):
            with torch.no_grad():
                pushed = self.push(self.draw(self.step, k))
            critic_gain, critic_norm = self._descend("critic", pushed, -1.0, rate)
        pushed = self.push(self.draw(self.step, self.settings.critic_steps))
        score_gain, force_norm = self._descend("force", pushed, 1.0, rate)
        self.step += 1
        self._track()
        return {
            "step": self.step,
            "gain": score_gain,
            "critic_gain": critic_gain,
            "force_norm": force_norm,
            "critic_norm": critic_norm,
        }

    def _descend(self, part: str, pushed: Trajectories, sign: float, rate: float) -> tuple[float, float]:
        """One Adam step of `part` on sign * E w gain; (E w gain, gradient norm)."""
        parameters = list(self._modules()[part].parameters())
        value = (self.weight(pushed.t) * self.gain(pushed)).mean()
        gradients = torch.autograd.grad(sign * value, parameters)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        mean = float(value.detach())
        if not math.isfinite(norm) or not math.isfinite(mean):
            raise self._diverged(f"the {part} update", f"weighted gain {mean:.3g}, gradient norm {norm:.3g}", pushed.t)
        clip = self.settings.gradient_clip
        scale = min(1.0, clip / norm) if clip and norm else 1.0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient * scale
        optimizer = self.optimizers[part]
        base = self.settings.learning_rate if part == "force" else self.settings.critic_learning_rate
        optimizer.param_groups[0]["lr"] = base * rate
        optimizer.step()
        optimizer.zero_grad()
        return mean, norm

    def _track(self) -> None:
        """Move the averages; a young average forgets faster, so that it does not remember the initial
        weights."""
        keep = min(self.settings.ema, self.step / (10 + self.step))
        with torch.no_grad():
            for name, average in self.average.items():
                for slow, fast in zip(average.parameters(), self._modules()[name].parameters(), strict=True):
                    slow.lerp_(fast, 1 - keep)

    def _modules(self) -> dict[str, nn.Module]:
        averages = {f"average_{name}": module for name, module in self.average.items()}
        return {"force": self.force, "critic": self.critic, **averages}

    def _diverged(self, where: str, numbers: str, t: Tensor) -> DivergenceError:
        return DivergenceError(
            f"Hamiltonian score matching diverged at update {self.step + 1} of {self.settings.steps}: "
            f"{where}; {numbers}; times {float(t.min()):.3g} to {float(t.max()):.3g}",
            why="from here on both networks would hold no numbers",
            fix="lower `learning_rate` or `horizon` (omega T < pi/2), or raise `critic_steps`",
        )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
