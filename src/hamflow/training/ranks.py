"""Several processes that train one objective: each has its rows of every batch, and all have the same weights."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from hamflow.errors import ConfigurationError

PATIENCE = timedelta(days=1)  # of the others, while the first waits for a lock or reads its data


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, within this block; where it started none, nothing changes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) where `torch.distributed` is not in use."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def check(batch: int) -> None:
    """Raise ConfigurationError for a batch that has no row for some process."""
    if batch < place()[1]:
        raise ConfigurationError(
            f"`training.batch` = {batch} cannot be shared by {place()[1]} processes",
            fix=f"start {batch} processes at most, or raise training.batch",
        )


def any_of(flag: bool) -> bool:
    """Whether the flag is set in one of the processes, each of which must ask."""
    if place()[1] == 1:
        return flag
    found = torch.tensor([float(flag)])
    distributed.all_reduce(found)
    return bool(found.item())


def add(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the processes, in one exchange.

    A wrapper around `forward`, as torch's DistributedDataParallel, would miss gradients that go another way: through an
    integrator, or a second derivative.
    """
    if place()[1] == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten().double() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
