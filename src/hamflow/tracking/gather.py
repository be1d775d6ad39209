"""What the folders of a preset say of its runs: JSONL, metrics and checkpoint metadata, for MLflow."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError, DataError
from hamflow.files import METADATA_KEY, fingerprint, read_json
from hamflow.tracking.jsonl import read_jsonl
from hamflow.tracking.records import (
    Point,
    curve_points,
    flatten,
    identity_tags,
    metric_points,
    run_key,
    run_name,
)


@dataclass
class Run:
    """One run as it shall stand in MLflow.

    Fields: `points` without repetition, in order; `content` the fingerprint of everything in it.
    """

    key: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    points: list[Point] = field(default_factory=list)

    @property
    def content(self) -> str:
        return fingerprint([self.params, self.tags, self.points])


def gather(results: Path, checkpoints: Path) -> tuple[list[Run], list[str]]:
    """The runs of a preset, and the names of those left out because their checkpoint is missing.

    Args:
        results: results/<preset>; its name is the preset.
        checkpoints: checkpoints/<preset>.
    Raises:
        CheckpointError, DataError: a file that is truncated or not ours.
    """
    preset = results.name
    runs, missing = [], []
    for dataset, method, seed in _seeds(results / "metrics", checkpoints):
        name = run_name(dataset, method, seed)
        folder = checkpoints / name
        model = folder / "model.safetensors"
        if method != "data" and not model.exists():
            missing.append(name)
            continue
        metadata = header_metadata(model) if model.exists() else {"spec": None}
        tags = identity_tags(preset, dataset, method, seed) | _provenance_tags(metadata)
        key = run_key(preset, dataset, method, seed, metadata["spec"])
        run = Run(key, name, flatten(metadata["spec"] or {}), tags)
        run.points = list(dict.fromkeys([*_curves(folder / "train.jsonl"), *_metrics(results / "metrics" / name)]))
        runs.append(run)
    return runs, missing


def header_metadata(model: Path) -> dict[str, Any]:
    """Our metadata from the header of a safetensors file: neither torch nor the weights are loaded.

    Raises:
        CheckpointError: the file is truncated or not one of ours.
    """
    try:
        with open(model, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, model.stat().st_size)))
        return json.loads(header["__metadata__"][METADATA_KEY])
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{model} is not a complete checkpoint ({error})",
            fix="delete it and train again, or fetch it anew with `dvc checkout`",
        ) from error


def _seeds(metrics: Path, checkpoints: Path) -> list[tuple[str, str, int]]:
    """Every (dataset, method, seed) that has metrics or a checkpoint, sorted."""
    found = {path.parent for path in metrics.glob("*/*/seed*/*.json")}
    found |= {path.parent for path in checkpoints.glob("*/*/seed*/model.safetensors")}
    return sorted({(p.parts[-3], p.parts[-2], int(p.name.removeprefix("seed"))) for p in found})


def _provenance_tags(metadata: dict[str, Any]) -> dict[str, str]:
    provenance = metadata.get("provenance") or {}
    kept = {name: metadata[name] for name in ("kimg", "parameters", "data_sha256") if name in metadata}
    tags = flatten({"provenance": provenance, **kept}, "hamflow.")
    if isinstance(commit := provenance.get("git_commit"), str):
        tags["mlflow.source.git.commit"] = commit
    return tags


def _curves(log: Path) -> Iterator[Point]:
    if not log.exists():
        return
    try:
        for record in read_jsonl(log):
            yield from curve_points(record)
    except (ValueError, KeyError) as error:
        raise DataError(f"{log} is not a training log: {error}", fix="delete it, or train again") from error


def _metrics(folder: Path) -> Iterator[Point]:
    for path in sorted(folder.glob("*.json")):
        try:
            result = read_json(path)
            if "metrics" in result:  # hsd.json and its like have their own form
                yield from metric_points(result)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a metrics file: {error}", fix="delete it and evaluate again") from error
