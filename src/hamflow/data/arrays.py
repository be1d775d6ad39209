"""Opening .npy files that may be absent, truncated, foreign or of another shape, and keeping them out of memory."""

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hamflow.errors import DataError

SMALL = 2**26  # bytes of an array that may stay in memory, 64 MiB
PART = 32  # rows read at a time of a larger one: with each the system maps its neighbours, too


def open_array(path: Path, *, dtype: str, shape: Sequence[int | None], why: str, fix: str, mapped: bool = True) -> np.ndarray:
    """The array of a .npy file, memory-mapped or read, checked against what it should be. Never unpickles.

    Args:
        dtype: the expected type, as numpy calls it.
        shape: the expected shape; None where any length will do.
        why, fix: of the error.
    Raises:
        DataError: an absent, truncated or foreign file, or one of another type or shape.
    """
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
        excess = path.stat().st_size - _header_size(path) - array.nbytes
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", why=why, fix=fix) from error
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is corrupted or truncated ({error})", why=why, fix=fix) from error
    if excess:
        raise DataError(f"{path} is corrupted: {excess} bytes follow its array", why=why, fix=fix)
    fits = array.ndim == len(shape) and all(s in (None, n) for n, s in zip(array.shape, shape, strict=True))
    if array.dtype != np.dtype(dtype) or not fits:
        expected = ", ".join("any" if s is None else str(s) for s in shape)
        found = ", ".join(map(str, array.shape))
        raise DataError(f"{path} holds {array.dtype} [{found}], not {dtype} [{expected}]", why=why, fix=fix)
    return array


def take(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rows of an array, copied; of a large memory-mapped one nothing else stays in memory."""
    if not _is_large(array):
        return array[indices]
    rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
    for start in range(0, len(indices), PART):
        rows[start : start + PART] = array[indices[start : start + PART]]
        release(array)
    return rows


def release(array: np.ndarray) -> None:
    """Take the pages of a large memory-mapped array out of this process, whose memory would grow with all that it has read.

    They stay in the system's cache of files as long as nothing else needs the room, so that reading them again costs little.
    """
    if _is_large(array) and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # numpy's own; views share it


def _is_large(array: np.ndarray) -> bool:
    mapped = getattr(array, "_mmap", None)
    return mapped is not None and len(mapped) > SMALL


def _header_size(path: Path) -> int:
    """Bytes before the array in a .npy file of any version."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            np.lib.format.read_array_header_1_0(file)
        else:
            np.lib.format.read_array_header_2_0(file)
        return file.tell()
