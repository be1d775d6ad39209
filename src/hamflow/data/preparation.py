"""Writing a data set: arrays, then the manifest that makes them one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hamflow import draws
from hamflow.data.sources import Source, build_split
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import save_array, sha256_of, untrusted, write_json

MANIFEST = "dataset.json"
ARRAYS = {"image": "images.npy", "point": "points.npy"}
LABELS = "labels.npy"
DTYPES = {"image": "uint8", "point": "float32"}
FORMAT = 1  # of the manifest
MOST_CHARACTERS = 2**24  # of the manifest
MOST_VALUES = 1_000_000  # in it: every class has a name
DIGITS = 12  # of sigma_data: the last ones of a sum depend on the machine's vector width


def prepare(spec: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Write the data set of a `hamflow.config.dataset_spec` into a folder; equal specs give equal bytes.

    With the option `holdout` the rows are shuffled, training rows come first and the rest are the test part.

    Returns:
        the manifest.
    Raises:
        ConfigurationError: an unknown source or option, or a value that cannot be.
        DataError: the source is not there, is corrupted, leaves its own box, or all its values are the same; more classes
            than a manifest may hold.
    """
    source, holdout = build_split(spec["source"], spec["options"])
    class_names = source.class_names()
    _check_describable(spec, class_names)
    array, labels = _checked(spec["name"], source, *source.read())
    array, labels, split = _split(array, labels, holdout)
    sigma = _sigma(spec["name"], source.kind, array[: split["train"]])
    folder = Path(folder)
    # an old manifest must not vouch for new arrays if this is cut short
    (folder / MANIFEST).unlink(missing_ok=True)
    digests = {}
    for name, rows in ((ARRAYS[source.kind], array), (LABELS, labels)):
        if rows is not None:
            save_array(folder / name, rows)
            digests[name] = sha256_of(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    if source.digest:
        digests["source"] = source.digest()
    manifest = {
        "format": FORMAT,
        "name": spec["name"],
        "source": spec["source"],
        "options": dict(spec["options"]),
        "origin": source.origin,
        "licence": source.licence,
        "kind": source.kind,
        "shape": list(model_shape(source.kind, array.shape[1:])),
        "count": len(array),
        "split": split,
        "classes": len(class_names),
        "class_names": list(class_names),
        "sigma_data": sigma,
        "box": list(source.box),
        "sha256": digests,
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def model_shape(kind: str, row: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one datum for a network, (C, H, W) or (D,), from that of one stored row."""
    return (row[2], row[0], row[1]) if kind == "image" else row


def to_model(kind: str, rows: np.ndarray) -> np.ndarray:
    """Stored rows in model space, float32: grey / 127.5 - 1, [N, C, H, W]; points, [N, D], as they are."""
    if kind == "point":
        return np.asarray(rows, dtype=np.float32)
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - np.float32(1)


def _check_describable(spec: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
    """Refuse, before anything is read, what `load` would refuse in the manifest; half of its bounds is for all else."""
    described = json.dumps([spec["options"], class_names], indent=1)
    try:
        untrusted.parse_json(described, MOST_CHARACTERS // 2, MOST_VALUES // 2)
    except ValueError as error:
        raise DataError(
            f"what describes '{spec['name']}' {error}",
            why="its manifest could not be read again",
            fix="fewer folders (each is a class) with shorter names, or another path",
        ) from error


def _checked(name: str, source: Source, array: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows that the source gave, checked against its promises. A broken promise is the source's bug, but for the box."""
    assert array.dtype == DTYPES[source.kind]
    assert array.ndim == (4 if source.kind == "image" else 2)
    assert (labels is not None) == bool(source.class_names())
    assert labels is None or (labels.dtype, labels.shape) == (np.int64, array.shape[:1])
    low, high = source.box
    edges = (-1.0, 1.0) if source.kind == "image" else (float(array.min()), float(array.max()))
    if not low <= edges[0] <= edges[1] <= high:  # also false for nan
        raise DataError(
            f"'{name}' reaches from {edges[0]:g} to {edges[1]:g}, outside its box [{low:g}, {high:g}]",
            why="the reflection flow lives in the box and could not carry these data",
            fix="draw fewer points or with another `seed`",
        )
    return array, labels


def _split(
    array: np.ndarray, labels: np.ndarray | None, holdout: float
) -> tuple[np.ndarray, np.ndarray | None, dict[str, int]]:
    test = round(holdout * len(array))
    split = {"train": len(array) - test, "test": test}
    if test:
        order = draws.generator(0, "split").permutation(len(array))
        array, labels = array[order], None if labels is None else labels[order]
    if not split["train"]:
        raise ConfigurationError(f"option `holdout` = {holdout} leaves no training rows of {len(array)}")
    return array, labels, split


def _sigma(name: str, kind: str, array: np.ndarray) -> float:
    """Root mean square of all coordinates about their one mean, model space (EDM: 0.5 for CIFAR-10)."""
    if array.min() == array.max():
        raise DataError(
            f"every value of '{name}' is {array.min()}", why="lengths are measured in the spread of the data, which is zero"
        )
    scale = 127.5 if kind == "image" else 1.0
    total, square = 0.0, 0.0
    for block in np.array_split(array, max(1, array.size // 2**24)):
        values = block.astype(np.float64)
        total, square = total + values.sum(), square + np.square(values).sum()
    mean = total / array.size
    return float(f"{np.sqrt(square / array.size - mean**2) / scale:.{DIGITS}g}")
