"""Reading the metrics of a preset: a JSON for each (data set, method, seed, setting), checked together."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamflow.errors import UserError
from hamflow.files import read_json
from hamflow.report import paper

KEYS = {
    "preset": str,
    "dataset": str,
    "dataset_label": str,
    "conditional": bool,
    "method": str,
    "label": str,
    "sampler": str,
    "nfe": int | float,
    "seed": int,
    "metrics": dict,
}
FILES = ("*-nfe*.json", "hsd.json")
UNSAMPLED = "none"  # the sampler of metrics of the model itself, which draw no samples
FIX = "delete what is left of other runs and start the workflow again, which evaluates what is missing"


class MetricsError(UserError):
    """Metrics that are absent, unreadable, or contradict each other."""


@dataclass(frozen=True)
class Result:
    """The metrics of one set of samples; `setting` is the file's stem, as heun-nfe35."""

    path: Path
    setting: str
    preset: str
    dataset: str
    dataset_label: str
    conditional: bool
    method: str
    label: str
    sampler: str
    nfe: float
    seed: int
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def n(self) -> int:
        """Samples in the set: a metric may have used fewer."""
        return max(metric["n"] for metric in self.metrics.values())


def find(folders: Iterable[Path]) -> list[Path]:
    """Every <sampler>-nfe<n>.json and hsd.json at or below the folders, sorted; hidden files are half-written ones."""
    found = {path for folder in folders for name in FILES for path in Path(folder).rglob(name)}
    return sorted(path for path in found if not path.name.startswith("."))


def collect(paths: Sequence[Path]) -> list[Result]:
    """The results in those files, each checked, and all against each other.

    Raises:
        MetricsError: none at all; a file that is no metrics JSON or lies under another name's path; two
            presets; one setting twice; sample counts, features or labels that differ within what is one line.
    """
    if not paths:
        raise MetricsError("there are no metrics to tabulate", fix="run the experiment first: `hamflow evaluate --help`")
    results = [read(Path(path)) for path in paths]
    _one(results, lambda r: "the table", lambda r: r.preset, "presets")
    _one(results, lambda r: f"data set '{r.dataset}'", lambda r: (r.dataset_label, r.conditional), "labels")
    _one(results, lambda r: f"method '{r.method}'", lambda r: r.label, "labels")
    drawn = [r for r in results if r.method != paper.BOUND and r.sampler != UNSAMPLED]  # the bound may rest on half
    _one(drawn, lambda r: f"data set '{r.dataset}'", lambda r: r.n, "sample counts")
    for metric in {name for r in results for name in r.metrics}:
        having = [r for r in results if metric in r.metrics]
        _one(
            having,
            lambda r, metric=metric: f"'{metric}' on '{r.dataset}'",
            lambda r, metric=metric: r.metrics[metric]["features"],
            "feature networks",
        )
    _no_repetition(results)
    return results


def read(path: Path) -> Result:
    """One file, checked against its own path .../<dataset>/<method>/seed<k>/<setting>.json."""
    try:
        content = read_json(path)
        for key, kind in KEYS.items():
            if not isinstance(content[key], kind):
                raise ValueError(f"`{key}` is {content[key]!r}")
        if not content["metrics"]:
            raise ValueError("`metrics` is empty")
        for name, metric in content["metrics"].items():
            _check_metric(name, metric)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"the key {error}" if isinstance(error, KeyError) else str(error)
        raise MetricsError(f"{path} is not a metrics file: {what}", why="the table would miss a line", fix=FIX) from error
    named, said = path.parts[-4:-1], (content["dataset"], content["method"], f"seed{content['seed']}")
    if len(named) == 3 and named != said:
        raise MetricsError(f"{path} is of {'/'.join(said)}", why="it lies under another name", fix=FIX)
    return Result(path, path.stem, **{key: content[key] for key in KEYS})


def _check_metric(name: str, metric: Mapping[str, Any]) -> None:
    if not {"value", "n", "features"} <= metric.keys():
        raise ValueError(f"metric '{name}' lacks its value, n or features")
    for key in ("value", "standard_error"):
        number = metric.get(key)
        if number is not None and (type(number) not in (int, float) or not abs(number) <= sys.float_info.max):
            raise ValueError(f"metric '{name}' has the {key} {number!r}, no finite number")
    if type(metric["n"]) is not int or not isinstance(metric["features"], str):
        raise ValueError(f"metric '{name}' has n = {metric['n']!r} of features {metric['features']!r}")


def _one(results: Sequence[Result], group, value, what: str) -> None:
    """Raise unless `value` is the same throughout each `group`; names two files that disagree."""
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(group(result), result)
        if value(other) != value(result):
            raise MetricsError(
                f"{group(result)} has two {what}: {value(other)!r} in {other.path}, {value(result)!r} in {result.path}",
                why="figures of different presets, sample counts or networks cannot be compared",
                fix=FIX,
            )


def _no_repetition(results: Sequence[Result]) -> None:
    seen: dict[tuple, Path] = {}
    for r in results:
        other = seen.setdefault((r.dataset, r.method, r.seed, r.setting), r.path)
        if other != r.path:
            raise MetricsError(f"{other} and {r.path} are the same setting and seed", fix=FIX)
