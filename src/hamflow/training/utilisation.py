"""How well a training uses its card: images/s, memory, and the model's operations as a share of what the card could do."""

import re
import resource
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hamflow.draws import BatchDraws, seeded
from hamflow.training.plan import Training

if TYPE_CHECKING:
    from hamflow.training.fit import Objective, Rows

# Dense bfloat16 operations a second (a multiply-add is two), from the makers' data sheets. The first name that occurs counts.
# Volta and Turing have no bfloat16; theirs is float16's.
PEAKS = {
    r"B200": 2.25e15,
    r"H200|H100 (80GB HBM3|SXM)|GH200": 9.89e14,
    r"H100 NVL": 8.35e14,
    r"H100": 7.56e14,
    r"A100": 3.12e14,
    r"L40S": 3.62e14,
    r"L40\b": 1.81e14,
    r"L4\b": 1.21e14,
    r"A40\b": 1.497e14,
    r"A30\b": 1.65e14,
    r"A10\b": 1.25e14,
    r"RTX 5090": 2.095e14,
    r"RTX 4090": 1.652e14,
    r"RTX 3090": 7.1e13,
    r"V100": 1.25e14,
    r"T4\b": 6.5e13,
}
ROWS = 4  # of the batch by which operations are counted: they grow in proportion


def peak(device: torch.device | str) -> float | None:
    """Operations a second that the device could do at most, in bfloat16; None: its name is not in the table."""
    device = torch.device(device)
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(card: str) -> float | None:
    """The same of a card by its name, as its driver gives it."""
    return next((peak for name, peak in PEAKS.items() if re.search(name, card)), None)


def operations(objective: "Objective", rows: "Rows", plan: Training, seed: int = 0) -> float:
    """Floating-point operations of a training step in products and convolutions, forward and backward, over its turns.

    They are counted by running the losses of a few rows once, on draws of their own; nothing moves.
    """
    from torch.utils.flop_counter import FlopCounterMode

    count, total = min(ROWS, plan.batch), 0.0
    device = next(objective.parameters()).device
    x, label = rows.batch(np.arange(count) % rows.count)
    x, label = x.to(device), None if label is None else label.to(device)
    for turn in objective.turns:
        draws = BatchDraws(seed, "operations", turn.name, batch=count, device=device)
        weights = [weight for weight in objective.get_submodule(turn.player).parameters() if weight.requires_grad]
        with seeded(device, seed, "operations"), FlopCounterMode(display=False) as counter:
            loss = objective.losses(turn.name, _batch(objective, x, label, draws)).sum()
            torch.autograd.grad(loss, weights, allow_unused=True)
        total += counter.get_total_flops() * plan.batch / count * turn.repeats / turn.every
    return total


def _batch(objective: "Objective", x: torch.Tensor, label: torch.Tensor | None, draws: BatchDraws) -> Any:
    from hamflow.training.fit import Batch

    return Batch(x, label, 0, draws, objective)


def memory(device: torch.device) -> float:
    """The most memory that was in use, GiB: of the card, or on the CPU of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
