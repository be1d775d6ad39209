"""What a run is to MLflow: its key, its parameters, and its metrics as points (name, value, step)."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hamflow.files import canonical_json, fingerprint

FORBIDDEN = re.compile(r"[^\w./ :-]")  # characters that MLflow refuses in the name of a metric
KEY_TAG = "hamflow.key"  # by this tag a run is found again
LONGEST_VALUE = 5000  # characters; MLflow refuses parameters and tags that are much longer


class Point(NamedTuple):
    """One value of one metric; the step is images seen (curves) or NFE (final metrics)."""

    name: str
    value: float
    step: int


def run_key(preset: str, dataset: str, method: str, seed: int, spec: Mapping[str, Any] | None) -> str:
    """The name of a run that anyone can compute: equal runs have equal keys. `spec` is the training spec."""
    return fingerprint({"preset": preset, "dataset": dataset, "method": method, "seed": seed, "spec": spec})


def run_name(dataset: str, method: str, seed: int) -> str:
    """How MLflow's pages call the run."""
    return f"{dataset}/{method}/seed{seed}"


def identity_tags(preset: str, dataset: str, method: str, seed: int) -> dict[str, str]:
    """The tags by which runs are filtered and grouped."""
    values = {"preset": preset, "dataset": dataset, "method": method, "seed": str(seed)}
    return {f"hamflow.{name}": value for name, value in values.items()}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names and short texts: {"a": {"b": 1}} -> {"a.b": "1"}; lists stay JSON."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else canonical_json(value)
            flat[f"{prefix}{name}"] = text[:LONGEST_VALUE]
    return flat


def curve_points(record: Mapping[str, Any]) -> Iterator[Point]:
    """The numbers of one line of train.jsonl as `train/<name>`, at step = images seen."""
    step = round(1000 * record["kimg"])
    for name, value in record.items():
        if name != "kimg" and _is_number(value):
            yield Point(f"train/{name}", float(value), step)


def metric_points(result: Mapping[str, Any]) -> Iterator[Point]:
    """The metrics of one metrics JSON as `<metric>/<sampler>`, at step = NFE."""
    for name, metric in result["metrics"].items():
        if _is_number(metric["value"]):
            yield Point(f"{FORBIDDEN.sub('_', name)}/{result['sampler']}", float(metric["value"]), round(result["nfe"]))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
