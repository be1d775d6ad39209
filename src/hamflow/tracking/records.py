"""A run as MLflow has it: its key, its parameters, its metrics as points (name, value, step), its data set."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hamflow.files import canonical_json, fingerprint
from hamflow.pipeline.records import Record
from hamflow.training.plan import MEASURED

FORBIDDEN = re.compile(r"[^\w./ :-]")  # characters that MLflow refuses in the name of a metric
CURVE = "train/"  # begins the name of what train.jsonl has
VARYING = frozenset(f"{CURVE}{name}" for name in MEASURED)  # what in it differs between equal trainings
KEY_TAG = "hamflow.key"  # by this tag a run is found again
LONGEST_VALUE = 5000  # characters; MLflow refuses parameters and tags that are much longer
LONGEST_DIGEST = 36  # characters of a data set's digest; MLflow's limit
LEVELS = ("preset", "dataset", "method", "seed")  # of the nesting


class Point(NamedTuple):
    """One value of one metric; the step is images seen (curves) or NFE (final metrics)."""

    name: str
    value: float
    step: int


class DataInput(NamedTuple):
    """A data set as MLflow's `mlflow.data` has it; `context` says what the run used it for."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    context: str


def group_key(*place: str) -> str:
    """The key of the run under which others stand: of a preset, a data set of it, or a method on that."""
    return fingerprint({"group": place})


def run_name(dataset: str, method: str, seed: int) -> str:
    """How MLflow's pages call the run."""
    return f"{dataset}/{method}/seed{seed}"


def identity_tags(*place: str | int) -> dict[str, str]:
    """The tags by which runs are filtered and grouped: of (preset, dataset, method, seed) or the first of them."""
    return {f"hamflow.{level}": str(value) for level, value in zip(LEVELS, place, strict=False)}


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
            yield Point(f"{CURVE}{name}", float(value), step)


def metric_points(record: Record) -> Iterator[Point]:
    """The metrics of one record as `<metric>/<sampler>`, at step = NFE."""
    for name, metric in record.metrics.items():
        if metric.value is not None:
            yield Point(f"{FORBIDDEN.sub('_', name)}/{record.sampler}", float(metric.value), round(record.nfe))


def data_input(name: str, sha256: str, manifest: Mapping[str, Any] | None, context: str) -> DataInput:
    """A prepared data set, without loading it.

    Args:
        name: its key in params.yaml.
        sha256: of its dataset.json, which stands for every byte of it.
        manifest: the content of dataset.json, or None where it is not at hand.
        context: "training" or "evaluation".
    """
    source = canonical_json({"uri": f"data/{name}"})
    schema = profile = None
    if manifest is not None:
        facts = {key: manifest[key] for key in ("kind", "count", "classes", "split", "licence", "origin", "sigma_data")}
        profile = canonical_json(facts | {"sha256": sha256})
        schema = canonical_json({"mlflow_tensorspec": {"features": json.dumps([_stored(manifest)]), "targets": None}})
    return DataInput(name, sha256[:LONGEST_DIGEST], "local", source, schema, profile, context)


def _stored(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """MLflow's description of the array as it lies on the disk: uint8 [N, H, W, C] or float32 [N, D]."""
    shape = manifest["shape"]
    image = manifest["kind"] == "image"
    stored = {"dtype": "uint8", "shape": [-1, *shape[1:], shape[0]]} if image else {"dtype": "float32", "shape": [-1, *shape]}
    return {"type": "tensor", "tensor-spec": stored}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
