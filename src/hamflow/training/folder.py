"""The resumable state of a training run: beside, never inside, what is published."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError
from hamflow.files import atomic, fingerprint, load_tensors, save_tensors
from hamflow.training.state import State

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

    def save(self, state: State, **also: Any) -> None:
        """Write the state atomically; `also`: plain values to keep with it."""
        progress = {**state.progress(), **also}
        save_tensors(self.folder / STATE, state.tensors(), {"identity": self.identity, "progress": progress})

    def load(self, state: State) -> dict[str, Any]:
        """Restore the latest state in place; returns the plain values that were kept with it, empty where there is none.

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
            state.restore(tensors, metadata["progress"])
            return metadata["progress"]
        except (CheckpointError, KeyError, TypeError, ValueError, RuntimeError) as error:
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
