"""Metrics records: a JSON for each (data set, method, seed, setting). They are read, and checked, here alone."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hamflow.errors import DataError
from hamflow.files import read_json
from hamflow.pipeline.paths import BOUND, CIRCUMSTANCES, HSD

UNSAMPLED = "none"  # the sampler of metrics of the model itself, which draw no samples
FIX = "delete what is left of other runs and start the workflow again, which evaluates what is missing"


class MetricsError(DataError):
    """Metrics that are absent, unreadable, or contradict each other."""


class Metric(msgspec.Struct, frozen=True):
    """One metric: its value, None where it does not apply; the samples and the features behind it; its paired resamples."""

    value: float | None
    n: int
    features: str
    standard_error: float | None = None
    resampled: list[float] | None = None

    def __post_init__(self) -> None:
        for number in (self.value, self.standard_error, *(self.resampled or ())):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"a metric is {number}, no finite number")


class Record(msgspec.Struct, frozen=True):
    """A metrics JSON and where it lies; further keys, of a metric too, are somebody else's."""

    path: Path
    preset: str
    dataset: str
    dataset_label: str
    conditional: bool
    method: str
    label: str
    sampler: str
    nfe: int | float
    seed: int
    metrics: dict[str, Metric]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.metrics and self.sampler != UNSAMPLED:  # a model without a score has no metrics of its own
            raise ValueError("`metrics` is empty")
        if not isinstance(self.provenance.get("data_sha256", ""), str):
            raise ValueError("`provenance.data_sha256` is no text")

    @property
    def setting(self) -> str:
        """The file's stem: heun-nfe35, hsd, real-nfe0."""
        return self.path.stem

    @property
    def sampled(self) -> bool:
        """Whether the metrics are of samples that a method drew: not of the model itself, nor of real data."""
        return self.method != BOUND and self.sampler != UNSAMPLED

    @property
    def n(self) -> int:
        """Samples in the set; a metric may have used fewer."""
        return max((metric.n for metric in self.metrics.values()), default=0)


def find(folders: Iterable[str | Path], settings: Collection[str] | None = None) -> list[Path]:
    """Every <sampler>-nfe<n>.json and hsd.json at or below the folders, sorted; or only those of some settings."""
    found = {path for folder in folders for name in ("*-nfe*.json", f"{HSD}.json") for path in Path(folder).rglob(name)}
    ours = (path for path in found if not path.name.startswith(".") and not path.name.endswith(f".{CIRCUMSTANCES}"))
    return sorted(path for path in ours if settings is None or path.stem in settings)


def read(path: str | Path) -> Record:
    """One file, checked against its own path .../<dataset>/<method>/seed<k>/<setting>.json.

    Raises:
        MetricsError: a file that is absent, is no metrics record, or lies under another name's path.
    """
    path = Path(path)
    try:
        record = msgspec.convert({**read_json(path), "path": path}, Record)
    except (OSError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise MetricsError(f"{path} is not a metrics file: {error}", why="the table would miss a line", fix=FIX) from error
    named, said = path.parts[-4:-1], (record.dataset, record.method, f"seed{record.seed}")
    if len(named) == 3 and named != said:
        raise MetricsError(f"{path} is of {'/'.join(said)}", why="it lies under another name", fix=FIX)
    return record


def check_together(records: Sequence[Record]) -> None:
    """Check records against each other.

    Raises:
        MetricsError: two presets; one setting twice; sample counts, features or labels that differ within what is one line.
    """
    _one(records, lambda r: "the table", lambda r: r.preset, "presets")
    _one(records, lambda r: f"data set '{r.dataset}'", lambda r: (r.dataset_label, r.conditional), "labels")
    _one(records, lambda r: f"method '{r.method}'", lambda r: r.label, "labels")
    _one([r for r in records if r.sampled], lambda r: f"data set '{r.dataset}'", lambda r: r.n, "sample counts")
    for name in sorted({name for r in records for name in r.metrics}):
        having = [r for r in records if name in r.metrics]
        _one(having, lambda r, m=name: f"'{m}' on '{r.dataset}'", lambda r, m=name: r.metrics[m].features, "feature networks")
    seen: dict[tuple, Path] = {}
    for r in records:
        other = seen.setdefault((r.dataset, r.method, r.seed, r.setting), r.path)
        if other != r.path:
            raise MetricsError(f"{other} and {r.path} are the same setting and seed", fix=FIX)


def _one(records: Sequence[Record], group: Callable[..., str], value: Callable[..., Any], what: str) -> None:
    """Raise unless `value` is the same throughout each `group`; names two files that disagree."""
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(group(record), record)
        if value(other) != value(record):
            raise MetricsError(
                f"{group(record)} has two {what}: {value(other)!r} in {other.path}, {value(record)!r} in {record.path}",
                why="figures of different presets, sample counts or networks cannot be compared",
                fix=FIX,
            )
