"""Classes and parts of a collection of images, by the folders that they lie in or by a file of labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hamflow.data.archives import shown
from hamflow.errors import DataError
from hamflow.files import untrusted

LABEL_FILE = "dataset.json"
MOST_CHARACTERS = 2**26  # of a label file
MOST_VALUES = 2**24  # in it: three for each image
LARGEST_LABEL = 2**31 - 1
SUFFIX = r"[ _.-]?(set|split|data|images|imgs|\d+)?"
TRAINING = re.compile(f"(train|training){SUFFIX}", re.I)
HELD_OUT = re.compile(f"(val|valid|validation|test|testing|eval|evaluation|dev|holdout|held[ _-]?out){SUFFIX}", re.I)

WHY = "what is taken for a class, or trained on, decides every number"


@dataclass(frozen=True)
class Arrangement:
    """Classes and parts of N images.

    Args:
        classes: names in the order of the labels; none without classes.
        labels: int64 [N], or None without classes.
        held_out: bool [N], whether the collection keeps the image for tests; None where it does not say.
    """

    classes: tuple[str, ...]
    labels: np.ndarray | None
    held_out: np.ndarray | None


def arrange(where: str, names: Sequence[str], label_files: Mapping[str, Mapping[str, int]]) -> Arrangement:
    """What the folders in the names of images, "a/b/1.png", say, and what label files say instead.

    Args:
        where: the collection, for errors.
        label_files: what `read_labels` gave for the label file of each folder that has one.
    Raises:
        DataError: folders that are classes as well as parts, images partly in folders, labels that miss images.
    """
    folders = _below_shared([tuple(name.split("/")[:-1]) for name in names])
    level = _level_of_parts(where, folders)
    held_out = None
    if level is not None:
        held_out = np.array([bool(HELD_OUT.fullmatch(folder[level])) for folder in folders])
        folders = _below_shared([folder[:level] + folder[level + 1 :] for folder in folders])
    if label_files:
        found: list[Any] | None = _labels(where, names, label_files)
        classes = sorted(set(found or []))
    else:
        found = [folder[0] if folder else "" for folder in folders]
        if "" in found and any(found):
            alone, other = names[found.index("")], next(name for name, c in zip(names, found, strict=True) if c)
            raise DataError(
                f"{where} has images in folders, such as {shown(other)}, and beside them, such as {shown(alone)}",
                why="it cannot be told whether the folders are classes",
                fix="move every image into the folder of its class, or all of them into one",
            )
        classes = sorted(set(found) - {""}, key=_order)
    if not classes or found is None:
        return Arrangement((), None, held_out)
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[name] for name in found], dtype=np.int64)
    return Arrangement(tuple(shown(str(name)) for name in classes), labels, held_out)


def read_labels(where: str, content: bytes) -> dict[str, int] | None:
    """The label file of NVlabs' dataset_tool: {"labels": [["00000/img0.png", 3], ...]}.

    Returns:
        the label of each file, by its name below the folder of the label file; empty where it says that there are none; None
        if it is another JSON file.
    Raises:
        DataError: it is no JSON, too large, or its labels are no numbers of classes.
    """
    try:
        value = untrusted.parse_json(content.decode("utf-8-sig"), MOST_CHARACTERS, MOST_VALUES)
        if not isinstance(value, dict) or "labels" not in value:
            return None
        labels: dict[str, int] = {}
        if value["labels"] is None:
            return labels
        if not isinstance(value["labels"], list):
            raise ValueError("has `labels` that are no list")
        for index, pair in enumerate(value["labels"]):
            if not isinstance(pair, list) or [type(part) for part in pair] != [str, int]:
                raise ValueError(f'has at labels[{index}] no pair of a name and the number of a class, ["00000/1.png", 3]')
            name = pair[0].replace("\\", "/").removeprefix("./")
            if not 0 <= pair[1] <= LARGEST_LABEL or name in labels:
                raise ValueError(f"has at labels[{index}] a number that is no class, or a name twice")
            labels[name] = pair[1]
        return labels
    except ValueError as error:
        raise DataError(f"{where} {error}", why=WHY, fix="mend the label file, or take it away to use the folders") from error


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers as numbers, before all other names."""
    number = name.isascii() and name.isdecimal() and len(name) < 100
    return not number, int(name) if number else 0, name


def _below_shared(folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The folders below the one that all share."""
    first, last = min(folders), max(folders)
    shared = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), min(len(first), len(last))
    )
    return [folder[shared:] for folder in folders]


def _level_of_parts(where: str, folders: list[tuple[str, ...]]) -> int | None:
    """At which level of the folders train, val or test lie side by side: 0, 1 (below the classes), or None."""
    for level in (0, 1):
        here = {folder[level] if level < len(folder) else "" for folder in folders}
        train, held = ({name for name in here if kind.fullmatch(name)} for kind in (TRAINING, HELD_OUT))
        if train and held and here == train | held:
            return level
        nested = any(folder[level] in train and level + 1 < len(folder) for folder in folders if level < len(folder))
        if (train and held) or (level == 0 and (held or (train and (nested or here == train)))):
            told = ", ".join(shown(name) or "images outside of them" for name in sorted(here - train - held)[:3])
            raise DataError(
                f"{where} has the folders {', '.join(map(shown, sorted(train | held)))}"
                + (f" beside others ({told})" if told else ", but not both of a training and of a held-out part"),
                why=f"they are the names of parts of a data set, and it cannot be told whether here they are classes: {WHY}",
                fix="keep folders for train and for val or test alone, each with the classes inside; or rename those that are "
                "classes; or give one of them as `path`",
            )
    return None


def _labels(where: str, names: Sequence[str], files: Mapping[str, Mapping[str, int]]) -> list[int] | None:
    """The label of each image from the nearest label file above it; None where these say that there are no labels."""
    nearest: dict[str, str | None] = {}
    found: list[int | None] = []
    used = {folder: 0 for folder in files}
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in nearest:
            nearest[folder] = _nearest(folder, files)
        file = nearest[folder]
        if file is None or not files[file]:
            found.append(None)
            continue
        found.append(files[file].get(name[len(file) + 1 if file else 0 :]))
        used[file] += found[-1] is not None
    if all(label is None for label in found) and not any(files.values()):
        return None
    if None in found:
        raise _uncovered(where, f"no label for {shown(names[found.index(None)])}")
    if unused := sum(len(labels) - used[folder] for folder, labels in files.items()):
        raise _uncovered(where, f"labels for {unused} images that are not there")
    return [label for label in found if label is not None]


def _nearest(folder: str, files: Mapping[str, Any]) -> str | None:
    while folder not in files and folder:
        folder = folder.rpartition("/")[0]
    return folder if folder in files else None


def _uncovered(where: str, what: str) -> DataError:
    return DataError(
        f"{where} has a label file, {LABEL_FILE}, with {what}",
        why=f"the images and their labels do not belong together: {WHY}",
        fix="copy the images and the label file again, or take the label file away to use the folders",
    )
