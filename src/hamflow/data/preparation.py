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
FORMAT = 2  # of the manifest
MOST_CHARACTERS = 2**24  # of the manifest
MOST_VALUES = 1_000_000  # in it: every class has a name
FEWEST_ROWS = 2  # one has no covariance
MOST_CLASSES_TOLD = 20  # on the terminal, one by one
DIGITS = 12  # of sigma_data: the last ones of a sum depend on the machine's vector width


def prepare(spec: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Write the data set of a `hamflow.config.dataset_spec` into a folder; equal specs give equal bytes.

    With the option `holdout` the rows are shuffled, training rows come first and the rest are the test part, in which every
    class has its share. A source that has a test part of its own keeps it.

    Returns:
        the manifest.
    Raises:
        ConfigurationError: an unknown source or option, or a value that cannot be.
        DataError: the source is not there, is corrupted, leaves its own box, or all its values are the same; too few rows, a
            class without a training row, more classes than a manifest may hold.
    """
    source, holdout = build_split(spec["source"], spec["options"])
    class_names = source.class_names()
    _check_describable(spec, class_names)
    array, labels = _checked(spec["name"], source, *source.read())
    test = _test_rows(spec["name"], holdout, labels, len(array), source.held_out() if source.held_out else None)
    array, labels, split = _split(array, labels, test)
    if source.kind == "image":
        _check_enough(spec["name"], split, wanted=test is not None)
    counts = _counts(spec["name"], labels, split, class_names)
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
        "class_counts": counts,
        "contents": source.contents(),
        "sigma_data": sigma,
        "box": list(source.box),
        "sha256": digests,
    }
    write_json(folder / MANIFEST, manifest)
    print(describe(manifest), flush=True)
    return manifest


def describe(manifest: Mapping[str, Any]) -> str:
    """What a data set holds, in a few lines."""
    split, contents = manifest["split"], manifest["contents"]
    lines = [f"{manifest['name']}: {manifest['count']} rows, {split['train']} for training, {split['test']} held out"]
    counts = list(zip(manifest["class_names"], *manifest["class_counts"].values(), strict=True))
    if counts:
        told = [f"{name} {train}" + (f" + {test}" if split["test"] else "") for name, train, test in counts[:MOST_CLASSES_TOLD]]
        if len(counts) > MOST_CLASSES_TOLD:
            sizes = [train for _, train, _ in counts]
            told.append(f"and others, {len(counts)} classes of {min(sizes)} to {max(sizes)} training rows")
        lines.append(f"classes: {', '.join(told)}")
    for title, key in (("files read", "endings"), ("left out", "left_out")):
        if contents.get(key):
            lines.append(f"{title}: " + ", ".join(f"{count} {name}" for name, count in contents[key].items()))
    if (split["test"] or split["train"] // 2) < FEWEST_ROWS:
        lines.append("too few rows to compare real data with real data: there will be no bound")
    if contents.get("damaged_blocks"):
        lines.append(f"{contents['damaged_blocks']} images have a damaged EXIF or MPF block, which is passed over")
    return "\n  ".join(lines)


def model_shape(kind: str, row: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one datum for a network, (C, H, W) or (D,), from that of one stored row."""
    return (row[2], row[0], row[1]) if kind == "image" else row


def to_model(kind: str, rows: np.ndarray) -> np.ndarray:
    """Stored rows in model space, float32: grey / 127.5 - 1, [N, C, H, W]; points, [N, D], as they are."""
    if kind == "point":
        return np.asarray(rows, dtype=np.float32)
    return np.ascontiguousarray(rows.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - np.float32(1)


def _check_describable(spec: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
    """Refuse, before anything is read, what `load` would refuse in the manifest; a class has two counts beside its name."""
    described = json.dumps([spec["options"], class_names], indent=1)
    try:
        untrusted.parse_json(described, MOST_CHARACTERS // 4, MOST_VALUES // 4)
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


def _test_rows(name: str, holdout: float, labels: np.ndarray | None, count: int, own: np.ndarray | None) -> np.ndarray | None:
    """Which rows are the test part, bool [count], or None. Of every class the share `holdout`, but never all of it."""
    if own is not None:
        if holdout:
            raise ConfigurationError(
                f"the source of '{name}' has a held-out part of its own, and option `holdout` = {holdout} asks for another",
                fix=f"leave out datasets.{name}.options.holdout, or give one of the parts as the source",
            )
        return own
    if not holdout:
        return None
    order = draws.generator(0, "split").permutation(count)
    sizes = _shares(np.bincount(labels) if labels is not None else np.array([count]), round(holdout * count))
    test = np.zeros(count, bool)
    for label, size in enumerate(sizes):
        rows = order if labels is None else order[labels[order] == label]
        test[rows[len(rows) - size :]] = True
    return test


def _shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """Parts of classes with these sizes that add up to `total` (or nearly): in proportion, by largest remainders, never all."""
    exact = sizes * total / max(1, sizes.sum())
    shares = np.minimum(np.floor(exact).astype(int), np.maximum(sizes - 1, 0))
    order = np.argsort(shares - exact, kind="stable")
    shares[order[shares[order] + 1 < sizes[order]][: max(0, total - shares.sum())]] += 1
    return shares


def _split(
    array: np.ndarray, labels: np.ndarray | None, test: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, int]]:
    """The rows shuffled, those for training first; as they are where nothing is held out."""
    if test is None:
        return array, labels, {"train": len(array), "test": 0}
    order = draws.generator(0, "split", "order").permutation(len(array))
    order = order[np.argsort(test[order], kind="stable")]
    held = int(test.sum())
    return array[order], None if labels is None else labels[order], {"train": len(array) - held, "test": held}


def _check_enough(name: str, split: Mapping[str, int], wanted: bool) -> None:
    """Refuse, before any training, a data set that has no covariance, or no held-out rows where these are asked for."""
    if split["train"] < FEWEST_ROWS or (wanted and not split["test"]):
        raise DataError(
            f"'{name}' has {split['train']} rows for training and {split['test']} held out",
            why=f"samples are compared with the mean and the covariance of {FEWEST_ROWS} rows or more",
            fix=f"more images, or another datasets.{name}.options.holdout",
        )


def _counts(
    name: str, labels: np.ndarray | None, split: Mapping[str, int], class_names: tuple[str, ...]
) -> dict[str, list[int]]:
    """Rows of each class in each part. Raises DataError for a class that has none to train on."""
    parts = {} if labels is None else {"train": labels[: split["train"]], "test": labels[split["train"] :]}
    counts = {part: np.bincount(rows, minlength=len(class_names)).tolist() for part, rows in parts.items()}
    if without := [class_names[label] for label, count in enumerate(counts.get("train", [])) if not count]:
        raise DataError(
            f"'{name}' has {len(without)} classes without a training row, such as {without[0]}",
            why="a class that nothing was learnt of cannot be sampled, and the held-out rows of it are of no use",
            fix="add training rows of it, or take its held-out ones away",
        )
    return counts


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
