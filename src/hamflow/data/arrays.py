"""Opening .npy files that may be absent, truncated, foreign or of another shape, and keeping them out of memory."""

import io
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from hamflow.errors import DataError

SMALL = 2**26  # bytes of an array that may stay in memory, 64 MiB
_FILES: WeakKeyDictionary[mmap.mmap, io.FileIO] = WeakKeyDictionary()  # of the mappings of larger ones


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
    if mapped and array.nbytes > SMALL:
        _FILES[array._mmap] = io.FileIO(path)  # type: ignore[attr-defined]
    return array


def take(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Rows of an array by their numbers >= 0, copied.

    Those of a large array of `open_array` are read from its file: what is read through the mapping stays in the memory of the
    process, which would grow to the size of the array.
    """
    mapped = getattr(array, "_mmap", None)  # numpy's own; views share it
    if mapped is None or mapped not in _FILES:
        return array[indices]
    file = _FILES[mapped]
    rows, size = np.empty((len(indices), *array.shape[1:]), array.dtype), array.strides[0]
    first = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    for row, index in zip(rows, indices, strict=True):
        if os.preadv(file.fileno(), [row], first + int(index) * size) != size:
            raise DataError(
                f"{file.name} ends before row {index}", why="it was cut short while it was in use", fix="start again"
            )
    return rows


def _header_size(path: Path) -> int:
    """Bytes before the array in a .npy file of any version."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            np.lib.format.read_array_header_1_0(file)
        else:
            np.lib.format.read_array_header_2_0(file)
        return file.tell()
