"""How a training uses the machine: `training.speed` of the parameters. Nothing here changes what is computed but rounding."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from hamflow.errors import ConfigurationError
from hamflow.training.plan import Speed

if TYPE_CHECKING:
    from hamflow.training.fit import Objective, Rows
    from hamflow.training.state import State

SHARE = 0.25  # of a device's free memory that the rows may take, where nobody has asked for them to be there


@runtime_checkable
class Placeable(Protocol):
    """Rows that can be in a device's memory."""

    stored_bytes: int

    def resident(self, device: torch.device) -> "Rows":
        """The same rows there."""


def precision_of(speed: Speed | None, device: torch.device) -> torch.dtype | None:
    """The type of the networks' products: bfloat16, or None for that of the weights."""
    asked = speed.precision if speed else None
    return torch.bfloat16 if asked == "bfloat16" or (asked is None and device.type == "cuda") else None


def reduced(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[Any]:
    """A block in which matrix products and convolutions are in that type; None: nothing changes."""
    return nullcontext() if precision is None else torch.autocast(device.type, precision)


def prepare(objective: "Objective", state: "State", speed: Speed | None, device: torch.device) -> None:
    """Before the first step of a process: precision, memory format and compilation of the networks.

    Raises:
        ConfigurationError: bfloat16 or a compiler for an objective that says of none of its networks that this is possible.
    """
    asked = [key for key in ("precision", "compile") if speed and getattr(speed, key) not in (None, False, "float32")]
    if asked and not objective.networks:
        raise ConfigurationError(
            f"`training.speed.{asked[0]}` is set, but this kind of method computes in the precision of its weights",
            why="it takes second derivatives, or others that a compiler does not follow",
            fix=f"leave training.speed.{asked[0]} out of this method's `training`",
        )
    objective.precision = precision_of(speed, device)
    if speed is None:
        return
    for module in [objective, state.averaged, *(power.module for power in state.power)]:
        if not speed.channels_last:
            module.to(memory_format=torch.contiguous_format)
    for name in objective.networks if speed.compile else ():
        network: nn.Module = objective.get_submodule(name)
        network.compile(dynamic=False)  # of this module alone: the averages, copied before, run as they are


def placed(rows: "Rows", device: torch.device, speed: Speed | None) -> "Rows":
    """The rows where batches are cheapest: in the device's memory if that was asked for, or if they fit in a part of it.

    Elsewhere each batch is copied from pinned memory, without waiting.
    """
    asked = speed.resident if speed else None
    if not isinstance(rows, Placeable) or asked is False:
        return rows
    if asked or (device.type == "cuda" and rows.stored_bytes <= SHARE * torch.cuda.mem_get_info(device)[0]):
        return rows.resident(device)
    return rows
