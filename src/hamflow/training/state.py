"""Where a training is: weights, averages, moments of the optimisers and the numbers of the report under way."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.training.adam import Adam, way_of
from hamflow.training.ema import ExponentialMovingAverage
from hamflow.training.plan import Training
from hamflow.training.power import PowerAverage

if TYPE_CHECKING:
    from hamflow.training.fit import Objective, Turn


class State:
    """The state of a training, from which it can go on to the same bits; no random number is in it.

    Args:
        objective: what is trained, at its start.
        plan: its settings.

    Attributes:
        step: steps done. history: the reports, {kimg, loss, learning_rate, ...}.
        record: the report of the latest step, the last of `history`, or None where none was due.
    """

    def __init__(self, objective: "Objective", plan: Training):
        self.objective, self.plan = objective, plan
        self.average = ExponentialMovingAverage(objective, 1000 * plan.ema_halflife_kimg, plan.ema_rampup)
        self.weights = {player: _weights(objective, player) for player in dict.fromkeys(t.player for t in objective.turns)}
        if unknown := set(plan.players) - set(self.weights):
            raise ConfigurationError(
                f"no player is called '{unknown.pop()}'", fix=f"`training.players`: {', '.join(self.weights)}"
            )
        self.power = [PowerAverage(objective, width) for width in (plan.snapshots.lengths if plan.snapshots else ())]
        fused = plan.speed.fused if plan.speed else None
        self.optimisers = {
            name: Adam(own, lr=0.0, betas=self._own(name, "betas"), **way_of(own, fused)) for name, own in self.weights.items()
        }
        self.step = 0
        self.window: dict[str, list[Any]] = {}  # name: values since the last report
        self.history: list[dict[str, Any]] = []
        self.record: dict[str, Any] | None = None
        self._fault: tuple[Tensor, ...] | None = None  # (whether there is one, step, turn, loss, norm) of the first

    @property
    def averaged(self) -> Any:
        """The moving average of the objective."""
        return self.average.network

    @property
    def kimg(self) -> float:
        """Thousands of images seen."""
        return self.step * self.plan.batch / 1000

    def begin(self, factor: float) -> None:
        """Set the learning rates of a step."""
        for player, optimiser in self.optimisers.items():
            optimiser.param_groups[0]["lr"] = self._own(player, "learning_rate") * factor

    def descend(self, turn: "Turn", gradients: list[Tensor], loss: Tensor) -> None:
        """Clip, and move the weights of the turn's player."""
        for weight, gradient in zip(self.weights[turn.player], gradients, strict=True):
            weight.grad = gradient
        limit = self._own(turn.player, "gradient_clip") or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.weights[turn.player], limit)
        self._watch(turn, loss, norm)
        self.optimisers[turn.player].step()
        self.optimisers[turn.player].zero_grad()
        self.note({"loss" if turn == self.objective.turns[-1] else f"{turn.name}_loss": loss})

    def note(self, numbers: dict[str, Tensor]) -> None:
        """Put numbers into the report under way; their mean will stand in it."""
        for name, value in numbers.items():
            self.window.setdefault(name, []).append(value)

    def end(self) -> None:
        """The averages, and the report if one is due."""
        self.step += 1
        self.average.update(self.objective, self.step * self.plan.batch, self.plan.batch)
        for power in self.power:
            power.update(self.objective, self.step)
        self.record = None
        if self.step % self.plan.steps_in(self.plan.report_kimg) == 0 or self.step == self.plan.steps:
            self.check()
            rate = next(iter(self.optimisers.values())).param_groups[0]["lr"]
            means = {name: sum(values) / len(values) for name, values in self._floats().items()}
            self.record = {"kimg": self.kimg, **means, "learning_rate": rate}
            self.history.append(self.record)
            self.window = {}

    def check(self) -> None:
        """Raise DivergenceError if a loss or gradient has not been finite."""
        if self._fault is None or not bool(self._fault[0]):
            return
        _, step, turn, loss, norm = (value.item() for value in self._fault)
        name = self.objective.turns[int(turn)].name
        raise DivergenceError(
            f"the training met loss {loss:g} and gradient norm {norm:g} in the turn '{name}' of step {step:g} "
            f"({step * self.plan.batch / 1000:g} kimg)",
            why="weights updated with it would be lost",
            fix=self.objective.advice,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, by name. Raises DivergenceError rather than to give what is not finite."""
        self.check()
        found = _named("objective", self.objective.state_dict()) | _named("averaged", self.averaged.state_dict())
        found |= self.snapshot()
        for player, optimiser in self.optimisers.items():
            for index, moments in optimiser.state_dict()["state"].items():
                found |= _named(f"adam.{player}.{index}", moments)
        return found

    def snapshot(self) -> dict[str, Tensor]:
        """The tensors of the averages that `training.snapshots` asks for: "power.<number>.<name>"."""
        return {k: v for i, power in enumerate(self.power) for k, v in _named(f"power.{i}", power.module.state_dict()).items()}

    def progress(self) -> dict[str, Any]:
        """The rest of the state, plain values."""
        return {"step": self.step, "window": self._floats(), "history": self.history}

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Go to the state that gave these. Raises KeyError or RuntimeError where they are of another training."""
        self.objective.load_state_dict(_under("objective", tensors))
        self.averaged.load_state_dict(_under("averaged", tensors))
        for number, power in enumerate(self.power):
            power.module.load_state_dict(_under(f"power.{number}", tensors))
        for player, optimiser in self.optimisers.items():
            groups = optimiser.state_dict()["param_groups"]
            moments = {index: _under(f"adam.{player}.{index}", tensors) for index in groups[0]["params"]}
            moments = {index: found for index, found in moments.items() if found}  # none before the first update
            if any(found.keys() != {"step", "exp_avg", "exp_avg_sq"} for found in moments.values()):
                raise KeyError(f"the moments of player '{player}' are incomplete")
            optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.window, self.history = progress["step"], dict(progress["window"]), progress["history"]

    def _own(self, player: str, setting: str) -> Any:
        """A setting of a player: its own, or that of all."""
        own = getattr(self.plan.players.get(player), setting, None)
        return getattr(self.plan, setting) if own is None else own

    def _watch(self, turn: "Turn", loss: Tensor, norm: Tensor) -> None:
        """Remember the first loss or gradient that is not finite; on the CPU, where it costs nothing, complain at once."""
        found = ~(loss.isfinite() & norm.isfinite())
        place = (self.step, self.objective.turns.index(turn))
        now = (found, *(torch.full_like(loss, value) for value in place), loss, norm.to(loss))
        before = self._fault
        self._fault = now if before is None else tuple(torch.where(before[0], a, b) for a, b in zip(before, now, strict=True))
        if loss.device.type == "cpu":
            self.check()

    def _floats(self) -> dict[str, list[float]]:
        return {name: [float(value) for value in values] for name, values in self.window.items()}


def _weights(objective: "Objective", player: str) -> list[Tensor]:
    return [weight for weight in objective.get_submodule(player).parameters() if weight.requires_grad]


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
