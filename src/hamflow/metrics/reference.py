"""The reference of a comparison: statistics of a data set, computed once, in one .npz whose bytes repeat."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hamflow.errors import DataError
from hamflow.files import atomic, canonical_json
from hamflow.metrics.moments import moments_of

KERNEL_ROWS = 10_000  # rows kept for the kernel distance, evenly spaced: its cost grows as their square
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry: a zip's time stamps would make equal statistics differ
WHY = "every distance of the tables is measured from these statistics"


@dataclass(frozen=True)
class Reference:
    """One side of a comparison.

    Args:
        rows: float32 [m, d]: features, thinned to at most `KERNEL_ROWS`, or all that a nearest neighbour is looked for in;
            or the points themselves.
        n: how many were seen, m or more.
        mean, covariance: float64 [d], [d, d], over all n.
        facts: provenance: dataset, features, data_sha256, ...
        held_out: distances of held-out images to their nearest training ones, float64 [h]; None: not asked for, or none.
    """

    rows: np.ndarray
    n: int
    mean: np.ndarray
    covariance: np.ndarray
    facts: Mapping[str, Any]
    held_out: np.ndarray | None = None

    @property
    def trace(self) -> float:
        """Of the covariance: the mean squared distance of the data from their mean."""
        return float(np.trace(self.covariance))


def summarise(rows: np.ndarray, facts: Mapping[str, Any], limit: int = KERNEL_ROWS) -> Reference:
    """The reference that rows, [n, d], make; of more than `limit` of them evenly spaced ones are kept."""
    moments = moments_of(rows)
    kept = np.asarray(thin(rows, limit), dtype=np.float32)
    return Reference(kept, moments.n, moments.mean, moments.covariance, dict(facts))


def thin(rows: np.ndarray, limit: int = KERNEL_ROWS) -> np.ndarray:
    """At most `limit` rows, evenly spaced."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def save(path: str | Path, reference: Reference) -> None:
    """Write a reference atomically; equal ones give equal bytes."""
    entries = {
        "rows": reference.rows,
        "n": np.int64(reference.n),
        "mean": reference.mean,
        "covariance": reference.covariance,
        "trace": np.float64(reference.trace),
        "facts": np.array(canonical_json(reference.facts)),
    }
    if reference.held_out is not None:
        entries["held_out"] = reference.held_out
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, value in entries.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", EPOCH), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(value), allow_pickle=False)


def load(path: str | Path) -> Reference:
    """Read the file that `save` wrote. Raises DataError: absent, truncated or foreign."""
    fix = "delete it and build it again: `hamflow evaluate` without --samples, or start the workflow again"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Reference(
                rows=archive["rows"],
                n=int(archive["n"]),
                mean=archive["mean"],
                covariance=archive["covariance"],
                facts=json.loads(str(archive["facts"])),
                held_out=archive.get("held_out"),
            )
    except FileNotFoundError as error:
        raise DataError(f"there are no reference statistics {path}", why=WHY, fix=fix) from error
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a complete reference ({error})", why=WHY, fix=fix) from error
