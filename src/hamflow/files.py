"""Files that are either complete or absent, and bytes that depend on their content alone."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError

METADATA_KEY = "hamflow"  # one key only: safetensors writes several in random order


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of a value, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_of(path: str | Path) -> str:
    """sha256 of a file, in hex, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` by one rename if the block succeeds, and is removed if not.

    The data reach the disk before the name does, so that after a crash `path` is whole, or as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def save_array(path: str | Path, array) -> None:
    """Write a numpy array as .npy, atomically."""
    import numpy as np

    array = np.ascontiguousarray(array)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data if array.size else b"")  # np.save loses the error number of a full disk


def save_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Any) -> None:
    """Write named tensors and JSON metadata as safetensors, atomically; equal inputs give equal bytes."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, metadata={METADATA_KEY: canonical_json(metadata)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # by Python, so that a full disk is an OSError like any other


def load_tensors(path: str | Path) -> tuple[dict[str, Any], Any]:
    """Read what `save_tensors` wrote: (tensors on the CPU, metadata).

    Raises:
        CheckpointError: the file is absent, truncated or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}", fix="train it first: `hamflow train --help`") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete checkpoint ({error})",
            why="a truncated or foreign file would give a network of random or partial weights",
            fix="delete it and train again, or fetch it anew with `dvc checkout`",
        ) from error
