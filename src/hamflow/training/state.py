"""The resumable state of a training run: beside, never inside, what is published."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hamflow.errors import CheckpointError
from hamflow.files import atomic, fingerprint, load_tensors, save_tensors

CHECKPOINT = "model.safetensors"
STATE = "state.safetensors"
LOG = "train.jsonl"


class StateFolder:
    """`<output>/state/<fingerprint>/`: a run of another configuration has another folder, so nothing is mixed up or lost.

    Args:
        output: the folder of the checkpoint.
        identity: everything that determines the weights: spec, seed, data, versions.
    """

    def __init__(self, output: Path, identity: dict[str, Any]):
        self.identity = identity
        self.folder = output / "state" / fingerprint(identity)[:16]
        self.log = self.folder / LOG

    def save(self, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
        """Write the state atomically; `progress` is JSON: the step, the reports, the losses of the report under way."""
        tensors = _named("network", network.state_dict()) | _named("average", average.state_dict())
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= _named(f"optimiser.{index}", moments)
        save_tensors(self.folder / STATE, tensors, {"identity": self.identity, "progress": progress})

    def load(self, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """Restore the latest state in place; returns its `progress`, empty where there is none.

        Raises:
            CheckpointError: the state is truncated or of another configuration.
        """
        path = self.folder / STATE
        if not path.exists():
            return {}
        try:
            tensors, metadata = load_tensors(path)
            if metadata["identity"] != self.identity:
                raise CheckpointError(f"{path} is of another configuration")
            network.load_state_dict(_under("network", tensors))
            average.load_state_dict(_under("average", tensors))
            parameters = optimiser.state_dict()["param_groups"][0]["params"]
            moments = {index: _under(f"optimiser.{index}", tensors) for index in parameters}
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": moments, "param_groups": groups})
            return metadata["progress"]
        except (CheckpointError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the training state {path} cannot be resumed ({str(error).splitlines()[0]})",
                why="going on from a damaged state would give weights that nobody can reproduce",
                fix=f"delete {self.folder} to train from the start",
            ) from error

    def keep(self, published: Iterable[Path]) -> None:
        """Put links to the published files in the place of the state, where the file system has links.

        A Snakemake that was killed has not seen its trainings end. Started again it deletes what they published.
        """
        with suppress(OSError):
            for path in published:
                (self.folder / path.name).unlink(missing_ok=True)
                os.link(path, self.folder / path.name)
        (self.folder / STATE).unlink(missing_ok=True)  # last: a kill before it leaves one or the other

    def put_back(self, published: Iterable[Path]) -> bool:
        """Publish again what `keep` has kept; whether all of it was there and whole."""
        kept = {self.folder / path.name: path for path in published}
        try:
            load_tensors(self.folder / CHECKPOINT)
        except CheckpointError:
            return False
        if not all(link.exists() for link in kept):
            return False
        for link, path in kept.items():
            with atomic(path) as temporary:
                shutil.copyfile(link, temporary)
        return True

    def remove(self) -> None:
        """Delete the state of this run (it is published), and the folder above if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
