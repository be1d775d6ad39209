"""Reading a prepared data set by memory map."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hamflow import draws
from hamflow.data.arrays import open_array, take
from hamflow.data.preparation import ARRAYS, DTYPES, FORMAT, LABELS, MANIFEST, MOST_CHARACTERS, MOST_VALUES, to_model
from hamflow.data.sources import Density, build
from hamflow.errors import DataError
from hamflow.files import sha256_of, untrusted

GOLDEN = 11400714819323198485  # 2^64 over the golden ratio
WHY = "training on incomplete or altered data would give other numbers under the same name"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A part, training or test, of a prepared data set.

    Args:
        folder: where it lies.
        manifest: the content of dataset.json.
        rows: as stored, memory-mapped: uint8 [N, H, W, C] or float32 [N, D].
        labels: int64 [N], memory-mapped, or None without classes.
    """

    folder: Path
    manifest: dict[str, Any]
    rows: np.ndarray
    labels: np.ndarray | None

    @property
    def name(self) -> str:
        """The key in params.yaml under which it was prepared."""
        return self.manifest["name"]

    @property
    def kind(self) -> str:
        """ "image" or "point"."""
        return self.manifest["kind"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one datum in model space: (C, H, W) or (D,)."""
        return tuple(self.manifest["shape"])

    @property
    def count(self) -> int:
        """N, rows of this part."""
        return len(self.rows)

    @property
    def classes(self) -> int:
        """Number of classes, 0 for none."""
        return self.manifest["classes"]

    @property
    def sigma_data(self) -> float:
        """Root mean square of the training part about its mean, model space."""
        return self.manifest["sigma_data"]

    @property
    def box(self) -> tuple[float, float]:
        """(low, high) of every coordinate, model space; contains all the data."""
        low, high = self.manifest["box"]
        return low, high

    @cached_property
    def sha256(self) -> str:
        """sha256 of dataset.json, which holds those of the arrays: it stands for every byte and option."""
        return sha256_of(self.folder / MANIFEST)

    def batch(self, indices) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Rows in model space.

        Args:
            indices: integers in [0, count), [n].
        Returns:
            (x, labels): float32 [n, *shape], images as grey level / 127.5 - 1; int64 [n] or None.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.count:
            raise IndexError(f"rows are 0..{self.count - 1}, got {indices.min()}..{indices.max()}")
        x = torch.from_numpy(to_model(self.kind, take(self.rows, indices)))
        return x, None if self.labels is None else torch.from_numpy(np.array(self.labels[indices]))

    def resident(self, device: torch.device) -> "Resident":
        """The same rows in the memory of a device, as they are stored."""
        labels = None if self.labels is None else torch.from_numpy(np.array(self.labels)).to(device)
        return Resident(self.kind, torch.from_numpy(np.array(self.rows)).to(device), labels)

    @property
    def stored_bytes(self) -> int:
        """What `resident` takes."""
        return self.rows.nbytes + (0 if self.labels is None else self.labels.nbytes)

    def draw_labels(self, seeds: Iterable[int], law: str = "data") -> np.ndarray | None:
        """Classes of samples: sample i has that of a training row, the i-th of a sequence that meets all rows evenly.

        Each class occurs in proportion to its rows, and none without rows. A function of the seed alone, as the noise is. The
        sequence is the multiples of the golden ratio, modulo 1 (Weyl): of n seeds in a row each class has nearly n p, where
        independent draws would differ by sqrt(n p (1 - p)) and add this to every metric.

        Args:
            seeds: integers >= 0, [n].
            law: "data", or "equal": each class that has rows equally often.
        Returns:
            int64 [n], or None without classes.
        """
        if self.labels is None:
            return None
        ends = np.cumsum(self._class_counts if law == "data" else self._class_counts > 0)
        places = [(int(seed) * GOLDEN % 2**64) * int(ends[-1]) >> 64 for seed in seeds]  # in Python's integers: exact
        return np.searchsorted(ends, np.array(places, dtype=np.int64), side="right").astype(np.int64)

    def equal_rows(self) -> np.ndarray:
        """Indices of rows in which each class that has any occurs equally often, as often as the rarest; sorted, int64."""
        if self.labels is None:
            raise ValueError(f"data set '{self.name}' has no classes")
        labels = np.asarray(self.labels)[order := draws.generator(0, "equal").permutation(self.count)]
        most = self._class_counts[self._class_counts > 0].min()
        return np.sort(np.concatenate([order[labels == label][:most] for label in np.flatnonzero(self._class_counts)]))

    @cached_property
    def _class_counts(self) -> np.ndarray:
        """Rows of each class in this part."""
        return np.bincount(np.asarray(self.labels), minlength=self.classes)

    def to_pixels(self, x: torch.Tensor) -> np.ndarray:
        """Images in model space, [n, C, H, W], as uint8 [n, H, W, C]: rounded, clipped; inverts `batch`."""
        if self.kind != "image":
            raise ValueError(f"data set '{self.name}' has no pixels")
        grey = ((x.detach().double() + 1) * 127.5).round().clamp(0, 255)
        return grey.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def density(self) -> Density | None:
        """The exact law of the data, or None where it is unknown."""
        options = {key: value for key, value in self.manifest["options"].items() if key != "holdout"}
        return build(self.manifest["source"], options).density if self.kind == "point" else None

    def test(self) -> "Dataset":
        """The test part (of a training part). Raises DataError where nothing was held out."""
        split = self.manifest["split"]
        if not split["test"]:
            raise DataError(
                f"data set '{self.name}' has no test part",
                fix=f"set datasets.{self.name}.options.holdout, say 0.1, and prepare it again",
            )
        return _open(self.folder, self.manifest, slice(split["train"], None))


class Resident:
    """Rows in the memory of a device; `batch` gives there what `Dataset.batch` gives, to the bit, and waits for nothing.

    Args:
        kind: image or point. rows: uint8 [N, H, W, C] or float32 [N, D]. labels: int64 [N], or None.
    """

    def __init__(self, kind: str, rows: torch.Tensor, labels: torch.Tensor | None):
        self.kind, self.rows, self.labels, self.count = kind, rows, labels, len(rows)

    def batch(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(x float32 [n, *shape], labels int64 [n] or None) of some rows."""
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        if self.rows.is_cuda:
            chosen = chosen.pin_memory().to(self.rows.device, non_blocking=True)
        x = self.rows[chosen]
        if self.kind == "image":
            x = x.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1
        return x, None if self.labels is None else self.labels[chosen]


def load(folder: str | Path, verify: bool = False) -> Dataset:
    """Open the training part of a data set; `verify` also hashes the arrays (seconds for gigabytes).

    Raises:
        DataError: absent, incomplete, corrupted, or not what its manifest says.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if verify:
        for name in (ARRAYS[manifest["kind"]], *([LABELS] if manifest["classes"] else [])):
            digest = manifest["sha256"][name]
            if (found := _hash(folder / name)) != digest:
                raise DataError(
                    f"{folder / name} has sha256 {found[:12]}…, but {folder / MANIFEST} says {digest[:12]}…",
                    why=WHY,
                    fix=_fix(folder),
                )
    return _open(folder, manifest, slice(manifest["split"]["train"]))


def _open(folder: Path, manifest: dict[str, Any], part: slice) -> Dataset:
    kind, shape, count = manifest["kind"], manifest["shape"], manifest["count"]
    stored = [shape[1], shape[2], shape[0]] if kind == "image" else shape
    open_ = partial(open_array, why=WHY, fix=_fix(folder))
    rows = open_(folder / ARRAYS[kind], dtype=DTYPES[kind], shape=[count, *stored])
    labels = open_(folder / LABELS, dtype="int64", shape=[count])[part] if manifest["classes"] else None
    return Dataset(folder, manifest, rows[part], labels)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"there is no data set in {folder}: {path} is absent", fix=_fix(folder))
    try:
        manifest = untrusted.parse_json(path.read_text(encoding="utf-8"), MOST_CHARACTERS, MOST_VALUES)
        if manifest["format"] != FORMAT:
            raise ValueError(f"it is of format {manifest['format']}, this is for format {FORMAT}")
        _check_manifest(manifest)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is not a complete manifest ({error})", why=WHY, fix=_fix(folder)) from error
    return manifest


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError for an entry that is missing, of another type, or contradicts the rest."""
    kind, shape, split = (manifest[key] for key in ("kind", "shape", "split"))
    low, high = manifest["box"]
    counts = [manifest["count"], split["train"], split["test"], manifest["classes"], *shape]
    digests = [manifest["sha256"][name] for name in (ARRAYS[kind], *([LABELS] if manifest["classes"] else []))]
    typed = {
        int: counts,
        float: [float(number) for number in (manifest["sigma_data"], low, high) if type(number) in (int, float)],
        str: [manifest["name"], manifest["source"], *digests],
        dict: [manifest["options"]],
    }
    if len(typed[float]) < 3 or not all(type(value) is expected for expected, values in typed.items() for value in values):
        raise ValueError("an entry is of the wrong type")
    if min(counts) < 0 or sum(counts[1:3]) != counts[0] or len(shape) != (3 if kind == "image" else 1) or not low < high:
        raise ValueError("its entries contradict each other")


def _hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})", why=WHY, fix=_fix(path.parent)) from error


def _fix(folder: Path) -> str:
    command = f"hamflow prepare quickstart/{folder.name} --output {folder}"
    return f"`{command}`, or `dvc checkout {folder}`"
