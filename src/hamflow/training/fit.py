"""The one training loop: it knows no file, no method and no rank, and on CUDA no step of it waits for the host."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hamflow.draws import BatchDraws, DataOrder, seeded
from hamflow.training import ranks, speed
from hamflow.training.plan import Training
from hamflow.training.state import State


class Turn(NamedTuple):
    """One update within a step.

    Attributes:
        name: of the update, and of its random streams. player: the sub-module whose weights move.
        repeats: updates in a row. every: only in every so many steps.
    """

    name: str
    player: str
    repeats: int = 1
    every: int = 1


class Batch(NamedTuple):
    """Rows of one update. All randomness is a function of (seed, turn, step, repeat), never of the microbatch or the rank.

    Attributes:
        x: data, [n, *shape]. label: int64 [n], or None. step: of the training.
        draw: random numbers of these rows, by name. averaged: the moving average of the objective.
    """

    x: Tensor
    label: Tensor | None
    step: int
    draw: BatchDraws
    averaged: "Objective"


class Objective(nn.Module, ABC):
    """What one training minimises. Its sub-modules and buffers are all of its state.

    Attributes:
        turns: the updates of a step, in their order.
        advice: for a training that leaves the finite numbers.
        networks: the sub-modules that may be compiled, and that compute in bfloat16 within `reduced`.
        precision: of their products, set by the loop; None: that of the weights.
    """

    turns: tuple[Turn, ...]
    advice = "lower training.learning_rate or training.gradient_clip"
    networks: tuple[str, ...] = ()
    precision: torch.dtype | None = None

    def reduced(self) -> AbstractContextManager[Any]:
        """For the calls of `networks`: matrix products and convolutions in `precision`; weights and norms keep theirs."""
        return speed.reduced(next(self.parameters()).device, self.precision)

    @abstractmethod
    def losses(self, turn: str, batch: Batch) -> Tensor:
        """The loss of each row, [n], minimised in the weights of the turn's player."""

    def begin(self, rows: "Rows") -> None:
        """Before the first step: take from the data what the objective needs of them as a whole; may fill buffers."""

    def check(self) -> None:
        """Raise ConfigurationError for buffers, read from a file, that cannot be."""

    def after(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        """Scalars to report, after an update on rows of which `batch` is the last part; may move buffers."""
        return {}


class Rows(Protocol):
    """Data by number, as `hamflow.data.Dataset`."""

    count: int

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """(x [n, *shape], labels int64 [n] or None) of some rows."""


class Samples:
    """Rows in memory.

    Args:
        x: [N, *shape]. label: int64 [N], or None.
    """

    def __init__(self, x: Tensor, label: Tensor | None = None):
        self.x, self.label, self.count = x, label, len(x)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        picked = torch.from_numpy(indices)
        return self.x[picked], None if self.label is None else self.label[picked]


def fit(objective: Objective, rows: Rows, plan: Training, seed: int, state: State | None = None) -> Iterator[State]:
    """Train an objective in place, on the device where it is, to the end of its plan; yields its state after every step.

    Args:
        rows: the data; their order is a function of (seed, turn, position).
        plan: length, optimiser and average.
        seed: of every random number.
        state: goes on from there, to the same bits as without a break; None: from the start.
    Raises:
        DivergenceError: a loss or gradient that is not finite. On CUDA it is found at the next report, or when the state is
            asked for.
    """
    state = State(objective, plan) if state is None else state
    fitting = _Fitting(objective, rows, plan, seed, state)
    while state.step < plan.steps:
        fitting.step()
        yield state


def fitted(objective: Objective, rows: Rows, plan: Training, seed: int) -> Any:
    """The moving average of an objective that is trained to the end of its plan."""
    state = State(objective, plan)
    for _ in fit(objective, rows, plan, seed, state):
        pass
    return state.averaged


class _Fitting:
    """One step after the other."""

    def __init__(self, objective: Objective, rows: Rows, plan: Training, seed: int, state: State):
        self.objective, self.plan, self.seed, self.state = objective, plan, seed, state
        self.device = next(objective.parameters()).device
        self.rows: Rows = speed.placed(rows, self.device, plan.speed)
        self.orders = {turn.name: DataOrder(seed, turn.name, count=rows.count) for turn in objective.turns}
        self.rank, self.world = ranks.place()
        objective.train()
        if state.step == 0:
            objective.begin(rows)
        speed.prepare(objective, state, plan.speed, self.device)

    def step(self) -> None:
        """Every turn of a step, the averages, and the report if one is due."""
        self.state.begin(learning_rate_factor(self.plan, self.state.step))
        for turn in self.objective.turns:
            for repeat in range(turn.repeats if self.state.step % turn.every == 0 else 0):
                self.update(turn, repeat)
        self.state.end()

    def update(self, turn: Turn, repeat: int) -> None:
        """One step of Adam of the turn's player."""
        weights = self.state.weights[turn.player]
        batches = self._batches(turn, repeat)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        gradients: list[Tensor] = []
        with seeded(self.device, self.seed, "dropout", turn.name, self.state.step, repeat, self.rank):
            for batch in batches:
                loss = self.objective.losses(turn.name, batch).sum() / self.plan.batch
                found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
                gradients = [a + b for a, b in zip(gradients, found, strict=True)] if gradients else list(found)
                total += loss.detach()
        ranks.add([*gradients, total])
        with torch.no_grad():
            self.state.descend(turn, gradients, total)
            numbers = self.objective.after(turn.name, batch)
            ranks.add(floating := [b for b in self.objective.buffers() if b.is_floating_point()] if self.world > 1 else [])
            for buffer in floating:  # which each process has moved by its own rows
                buffer /= self.world
        self.state.note(numbers)

    def _batches(self, turn: Turn, repeat: int) -> Iterator[Batch]:
        """This process's rows of the batch of an update, a microbatch at a time."""
        step, whole = self.state.step, self.plan.batch
        position = (step // turn.every * turn.repeats + repeat) * whole
        own = self.orders[turn.name].rows(position, whole)[self.rank :: self.world]
        draws = BatchDraws(self.seed, "training", turn.name, step, repeat, batch=whole, device=self.device)
        size = self.plan.microbatch or len(own)
        for start in range(0, len(own), size):
            stop = min(start + size, len(own))
            x, label = self.rows.batch(own[start:stop])
            part = draws.part(slice(self.rank + start * self.world, self.rank + (stop - 1) * self.world + 1, self.world))
            moved = None if label is None else self._moved(label)
            yield Batch(self._moved(x), moved, step, part, self.state.averaged)

    def _moved(self, rows: Tensor) -> Tensor:
        if self.device.type == "cuda" and not rows.is_cuda:
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)


def learning_rate_factor(plan: Training, step: int) -> float:
    """What the learning rates are multiplied by: a linear ramp over warmup_kimg, then a half cosine to zero, or constant."""
    kimg, end = step * plan.batch / 1000, plan.steps * plan.batch / 1000
    factor = min(1.0, (kimg + plan.batch / 1000) / plan.warmup_kimg) if plan.warmup_kimg else 1.0
    if plan.decay == "cosine":
        past = max(0.0, kimg - plan.warmup_kimg) / max(1e-9, end - plan.warmup_kimg)
        factor *= 0.5 * (1 + math.cos(math.pi * min(1.0, past)))
    return factor
