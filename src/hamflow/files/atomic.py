"""Files that are either complete or absent, and bytes that depend on their content alone."""

import glob
import hashlib
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError
from hamflow.files import untrusted

METADATA_KEY = "hamflow"  # one key only: safetensors writes several in random order
DIGEST_KEY = "sha256"  # in our metadata: of all else and of the tensors, since safetensors has no checksum
LEFTOVER_SECONDS = 3600
LARGEST_HEADER = 2**24  # bytes; a header describes 100,000 tensors in less
MOST_VALUES = 1_000_000  # in a header, and in its metadata


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
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Delete the temporary files of writers of `path` that were killed: nobody else's lies untouched for an hour."""
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.tmp{path.suffix}"):
        with suppress(OSError):  # of another writer that is quicker
            if time.time() - old.stat().st_mtime > LEFTOVER_SECONDS:
                old.unlink()


@contextmanager
def exclusive(path: str | Path) -> Iterator[bool]:
    """Hold the lock file `path` for a while; yields whether another process held it before, for which this one then waited.

    The system gives the lock back when its holder ends, however it ends. The file says who holds it; a holder removes it,
    with the folder, if it made that and nothing else is in it.
    """
    from filelock import FileLock, Timeout

    path, waited = Path(path), False
    made = not path.parent.exists()
    lock = FileLock(path)
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=-1 if waited else 0)
        except Timeout:
            with suppress(FileNotFoundError):  # its holder has just removed it
                print(
                    f"waiting for process {path.read_text(encoding='utf-8').strip() or '?'}, which holds {path}",
                    file=sys.stderr,
                    flush=True,
                )
                waited = True
        except (FileExistsError, FileNotFoundError):  # the last holder removed the folder at this moment
            if os.path.lexists(path.parent) and not path.parent.is_dir():
                raise
    try:
        with suppress(OSError):  # of a full disk: the name is for people
            path.write_text(f"{os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield waited
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it makes another
        lock.release()
        if made:
            with suppress(OSError):  # something is in it now
                path.parent.rmdir()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def save_array(path: str | Path, array) -> None:
    """Write a numpy array as .npy, atomically."""
    import numpy as np

    array = np.ascontiguousarray(array)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data if array.size else b"")  # np.save loses the error number of a full disk


def save_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write named tensors and JSON metadata as safetensors, atomically and with a checksum; equal inputs give equal bytes."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    signed = {**metadata, DIGEST_KEY: _digest_of(tensors, metadata)}
    content = save(tensors, metadata={METADATA_KEY: canonical_json(signed)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # by Python, so that a full disk is an OSError like any other


def load_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save_tensors` wrote: (tensors on the CPU, metadata). Whatever the bytes, no code in them is run, and no more
    memory is asked for than a few times the size of the file.

    Raises:
        CheckpointError: the file is absent, truncated, altered or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    metadata = _signed_metadata(path)
    digest = metadata.pop(DIGEST_KEY, None)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest != _digest_of(tensors, metadata):
            raise ValueError("its checksum is not that of its content")
        return tensors, metadata
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _incomplete(path, error) from error


def load_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of what `save_tensors` wrote, from the header alone: neither torch nor the tensors are loaded or checked.

    Raises:
        CheckpointError: the file is absent, or its header is truncated or not one of ours.
    """
    metadata = _signed_metadata(path)
    metadata.pop(DIGEST_KEY, None)
    return metadata


def _signed_metadata(path: str | Path) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no checkpoint {path}", fix="train it first: `hamflow train --help`")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LARGEST_HEADER, os.path.getsize(path) - 8):
                raise ValueError(f"its header should have {length} bytes")
            header = untrusted.parse_json(file.read(length).decode(), LARGEST_HEADER, MOST_VALUES)
        metadata = untrusted.parse_json(header["__metadata__"][METADATA_KEY], LARGEST_HEADER, MOST_VALUES)
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no mapping")
        return metadata
    except (ValueError, KeyError, TypeError) as error:
        raise _incomplete(path, error) from error


def _digest_of(tensors: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """sha256 of names, types, shapes, bytes and metadata."""
    import torch

    described = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
    digest = hashlib.sha256(canonical_json([metadata, described]).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _incomplete(path: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a complete checkpoint ({error})",
        why="a truncated or foreign file would give a network of random or partial weights",
        fix=f"delete it and train again, `snakemake --cores all {path}`, or fetch it anew with `dvc checkout`",
    )
