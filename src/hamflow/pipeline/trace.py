"""Where a number comes from: the chain behind one metrics JSON."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.files import load_metadata, read_json, sha256_of
from hamflow.pipeline import records
from hamflow.pipeline.paths import BOUND, CIRCUMSTANCES, MANIFEST, Preset, Run, circumstances_of
from hamflow.pipeline.provenance import read_circumstances, run_key
from hamflow.pipeline.records import UNSAMPLED, MetricsError, Record

UNKNOWN = "not recorded"
Facts = dict[str, Any]


def trace(path: Path, root: Path | None = None) -> dict[str, Facts]:
    """The chain behind one metrics JSON: {number, evaluation, samples, training, data, code, mlflow}, each a mapping.

    A hash that was recorded is compared with the file as it is now: `state` is "as recorded", "changed" or "not here".
    Commit, host and seconds are taken from the run.json beside the file, where it is.

    Args:
        path: <root>/results/<preset>/metrics/<dataset>/<method>/seed<k>/<setting>.json.
        root: the folder that holds data/, checkpoints/ and results/; names in the chain are relative to it. By default the
            folder above results/ in the path.
    Raises:
        DataError: the file is absent or no metrics JSON.
    """
    root = root or project(path)
    record = _metrics(path)
    known, around = record.provenance, _circumstances(path)
    run = Run(Preset(record.preset, root), record.dataset, record.method, record.seed)
    chain: dict[str, Facts] = {
        "number": {
            "file": name_of(path, root),
            "metrics": {name: metric.value for name, metric in record.metrics.items()},
            "setting": f"{record.sampler}, {record.nfe} evaluations",
        },
        "evaluation": {
            **_job(around.get("evaluation", {}), path.stem),
            **_known(known, "device", "params_sha256"),
        },
        "code": {"python": known.get("python"), **known.get("packages", {})},
        "data": {"folder": name_of(run.data, root), **_data(run.data, known.get("data_sha256"))},
    }
    if run.method == BOUND:  # no network, no samples
        return chain
    if record.sampler != UNSAMPLED:
        samples = run.samples / f"{path.stem}.npy"
        sampling = _job(around.get("sampling", {}), path.stem)
        chain["samples"] = {"file": name_of(samples, root), **_drawn(samples), **sampling}
    trained = load_metadata(run.checkpoint) if run.checkpoint.exists() else {}
    chain["training"] = {
        "checkpoint": name_of(run.checkpoint, root),
        "sha256": known.get("checkpoint_sha256"),
        "state": _state(run.checkpoint, known.get("checkpoint_sha256")),
        **_known(trained, "seed", "kimg", "parameters"),
        **_job(around.get("training", {}), path.stem),
        "parameters of the run": trained.get("spec"),
    }
    if trained:
        key = run_key(record.preset, record.dataset, record.method, record.seed, trained["spec"])
        chain["mlflow"] = {"hamflow.key": key}
    return chain


def as_text(chain: Mapping[str, Facts]) -> str:
    """The chain in words, a line a fact."""
    return "\n".join(line for name, facts in chain.items() for line in [name, *_lines(facts)])


def project(path: Path) -> Path:
    """The folder above the nearest results/ of a path; the current one where there is none."""
    parents = Path(os.path.abspath(path)).parents
    return next((folder.parent for folder in parents if folder.name == "results"), Path())


def name_of(path: Path, root: Path) -> str:
    """Relative to the root, by name: data/ or checkpoints/ may be a link to another disk."""
    return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(root))).as_posix()


def _metrics(path: Path) -> Record:
    try:
        return records.read(Path(os.path.abspath(path)))
    except MetricsError as error:
        raise DataError(
            f"{path} is no metrics JSON: {error.what}",
            fix="give results/<preset>/metrics/<dataset>/<method>/seed<k>/<sampler>-nfe<n>.json: the columns of table1.csv",
        ) from error


def _circumstances(path: Path) -> Facts:
    """Of the job that wrote this record alone, or else its folder."""
    return read_circumstances(circumstances_of(path)) or read_circumstances(path.with_name(CIRCUMSTANCES))


def _job(facts: Mapping[str, Any], setting: str) -> Facts:
    """Commit, host and seconds of one job; where it noted the seconds of each setting, those of this one."""
    seconds = facts.get("wall_seconds", UNKNOWN)
    seconds = seconds.get(setting, UNKNOWN) if isinstance(seconds, Mapping) else seconds
    return {**_known(facts, "git_commit", "git_dirty", "host"), "wall_seconds": seconds}


def _data(folder: Path, recorded: str | None) -> Facts:
    manifest = folder / MANIFEST
    facts = {"sha256": recorded, "state": _state(manifest, recorded)}
    if manifest.exists():
        facts |= _known(read_json(manifest), "source", "licence", "count", "shape")
    return facts


def _drawn(samples: Path) -> Facts:
    sidecar = samples.with_suffix(".json")
    if not sidecar.exists():
        return {"state": "not here"}
    facts = read_json(sidecar)
    return {**_known(facts, "n", "grid", "device"), "first seed": facts.get("first_seed", UNKNOWN)}


def _state(path: Path, recorded: str | None) -> str:
    if not path.exists():
        return "not here"
    return "as recorded" if sha256_of(path) == recorded else "changed"


def _known(facts: Mapping[str, Any], *keys: str) -> Facts:
    return {key: facts.get(key, UNKNOWN) for key in keys}


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield f"  {key:<{width}}  {text}"
