"""What the folders of a preset say of its runs: curves, metrics and checkpoint metadata, for MLflow."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError, DataError
from hamflow.files import fingerprint, load_metadata, read_json, sha256_of
from hamflow.pipeline.provenance import CIRCUMSTANCES, read_circumstances
from hamflow.tracking.jsonl import read_jsonl
from hamflow.tracking.records import (
    LEVELS,
    DataInput,
    Point,
    curve_points,
    data_input,
    flatten,
    group_key,
    identity_tags,
    metric_points,
    run_key,
)

BOUND = "data"  # stands for a method where real data are measured
SEED = re.compile(r"seed(0|[1-9][0-9]*)")  # the name of a run's folder; one like seed0-backup is nobody's
FACTS = ("kimg", "parameters", "data_sha256", "packages")  # of a checkpoint's metadata, which become tags


@dataclass
class Checkpoint:
    """A file of weights and its sha256, in hex."""

    path: Path
    sha256: str


@dataclass
class Run:
    """One run as it shall stand in MLflow.

    Fields:
        key: by which it is found again.
        place: (preset, dataset, method, seed), or the first of them for a run under which others stand.
        points: without repetition, in order.
        told: tags that differ between equal runs: commit, host, seconds. Present on the machine that ran, absent
            after `dvc pull`.
        told_points: likewise, the speeds.
    """

    key: str
    place: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    told_points: list[Point] = field(default_factory=list)
    data: DataInput | None = None
    checkpoint: Checkpoint | None = None

    @classmethod
    def group(cls, *place: str) -> "Run":
        """A run under which others stand."""
        return cls(group_key(*place), place, tags=identity_tags(*place))

    @property
    def name(self) -> str:
        """How MLflow's pages call it: one that stands alone, as in a chart, by its whole place below the preset."""
        return "/".join(self.place[1:]) if len(self.place) == len(LEVELS) else self.place[-1]

    @property
    def content(self) -> str:
        """Fingerprint of all in it that equal work repeats: publishing from another machine finds it unchanged."""
        weights = self.checkpoint and self.checkpoint.sha256
        return fingerprint([self.params, self.tags, self.points, self.data, weights])


def gather(results: Path, checkpoints: Path, data: Path) -> tuple[list[Run], list[str]]:
    """The runs of a preset, and the names of those left out because their checkpoint is missing.

    Numbers are read from results/values, which DVC versions, or where they are not there, from results/metrics.

    Args:
        results: results/<preset>; its name is the preset.
        checkpoints: checkpoints/<preset>.
        data: the folder of the data sets; one that is not there is described by its digest alone.
    Raises:
        CheckpointError, DataError: a file that is truncated or not ours.
    """
    runs, missing = [], []
    for dataset, method, seed in _seeds(results, checkpoints):
        files = _Files(results, checkpoints, Path(dataset, method, f"seed{seed}"))
        if method != BOUND and not files.model.exists():
            missing.append(str(files.name))
        else:
            runs.append(_run(files, results.name, dataset, method, seed, data / dataset))
    return runs, missing


def _seeds(results: Path, checkpoints: Path) -> list[tuple[str, str, int]]:
    """Every (dataset, method, seed) that has metrics or a checkpoint, sorted."""
    found = {path.parent for kind in ("values", "metrics") for path in (results / kind).glob("*/*/seed*/*.json")}
    found |= {path.parent for path in checkpoints.glob("*/*/seed*/model.safetensors")}
    return sorted({(p.parts[-3], p.parts[-2], int(named[1])) for p in found if (named := SEED.fullmatch(p.name))})


class _Files:
    """What there is of one (dataset, method, seed)."""

    def __init__(self, results: Path, checkpoints: Path, name: Path):
        self.name = name
        self.folder = checkpoints / name
        self.model = self.folder / "model.safetensors"
        self._values, self._metrics = results / "values" / name, results / "metrics" / name

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Of the checkpoint; empty where real data are measured."""
        return load_metadata(self.model) if self.model.exists() else {}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The metrics JSON, in order of their names."""
        paths = {path.name: path for folder in (self._metrics, self._values) for path in folder.glob("*.json")}
        return [_read_record(paths[name]) for name in sorted(paths)]

    @property
    def circumstances(self) -> dict[str, Any]:
        """Commit, host and seconds of the training or, where nothing was trained, of the evaluation."""
        if self.model.exists():
            return read_circumstances(self.folder)
        for path in sorted(self._metrics.glob("*.json")):
            facts = _read_record(path).get("provenance", {})
            return {key: facts[key] for key in CIRCUMSTANCES if key in facts}
        return {}

    @property
    def data_sha256(self) -> str:
        """Of the data set's manifest; empty where no file names it."""
        told = (self.metadata, *(record.get("provenance", {}) for record in self.records))
        return next((facts["data_sha256"] for facts in told if "data_sha256" in facts), "")

    def history(self) -> list[dict[str, Any]]:
        """The reports of the training that the checkpoint holds, else those of train.jsonl."""
        return self.metadata["history"] if "history" in self.metadata else self.log()

    def log(self) -> list[dict[str, Any]]:
        """The lines of train.jsonl, which also has the speeds; empty where it is not there."""
        path = self.folder / "train.jsonl"
        try:
            return read_jsonl(path) if path.exists() else []
        except ValueError as error:
            raise DataError(f"{path} is not a training log: {error}", fix="delete it, or train again") from error


def _run(files: _Files, preset: str, dataset: str, method: str, seed: int, data: Path) -> Run:
    """All of one run. Raises CheckpointError for metadata that are not those of a training here."""
    try:
        run = _described(files, preset, dataset, method, seed, data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{files.model} has metadata that hamflow did not write: {type(error).__name__}: {error}",
            fix="delete it and train again, or fetch it anew with `dvc checkout`",
        ) from error
    _tell(run, files)
    return run


def _described(files: _Files, preset: str, dataset: str, method: str, seed: int, data: Path) -> Run:
    """What equal work repeats of a run."""
    metadata = files.metadata
    spec = metadata.get("spec")
    facts = flatten({name: metadata[name] for name in FACTS if name in metadata}, "hamflow.")
    run = Run(
        key=run_key(preset, dataset, method, seed, spec),
        place=(preset, dataset, method, f"seed{seed}"),
        params=flatten(spec or {}),
        tags=identity_tags(preset, dataset, method, seed) | facts,
        points=_unique(_curve(files.history(), files.model), _metrics(files.records)),
    )
    if files.data_sha256:
        run.data = _data_input(dataset, files.data_sha256, data, "evaluation" if method == BOUND else "training")
    if files.model.exists():
        run.checkpoint = Checkpoint(files.model, sha256_of(files.model))
    return run


def _tell(run: Run, files: _Files) -> None:
    """Add what differs between equal runs, unless train.jsonl and run.json are of another training than the checkpoint.

    DVC versions the checkpoint alone: after a retraining and `dvc checkout` of the earlier weights, the later training's
    files lie beside them. But for the speeds, a log of the same training has the checkpoint's own curve.
    """
    curve, log = set(_curve(files.history(), files.model)), set(_curve(files.log(), files.folder))
    names = {point.name for point in curve}
    ours = curve == {point for point in log if point.name in names}
    if ours or not log:  # without a log, nothing speaks against run.json
        run.told = _told(files.circumstances)
    if ours:
        run.told_points = _unique(log - curve)


def _unique(*points: Any) -> list[Point]:
    return sorted({point for some in points for point in some}, key=lambda point: (point.name, point.step, point.value))


def _curve(records: list[dict[str, Any]], where: Path) -> Iterator[Point]:
    try:
        for record in records:
            yield from curve_points(record)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"the training curve of {where} cannot be read: {type(error).__name__}: {error}", fix="delete it, or train again"
        ) from error


def _metrics(records: list[dict[str, Any]]) -> Iterator[Point]:
    for record in records:
        yield from metric_points(record)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
        list(metric_points(record))
        if not isinstance(record.get("provenance", {}).get("data_sha256", ""), str):
            raise TypeError("its provenance.data_sha256 is no text")
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a metrics file: {error}", fix="delete it and evaluate again") from error


def _told(circumstances: Mapping[str, Any]) -> dict[str, str]:
    told = flatten({key: value for key, value in circumstances.items() if value is not None}, "hamflow.")
    if "hamflow.git_commit" in told:
        told["mlflow.source.git.commit"] = told["hamflow.git_commit"]
    return told


def _data_input(dataset: str, sha256: str, folder: Path, context: str) -> DataInput:
    path = folder / "dataset.json"
    known = path.exists() and sha256_of(path) == sha256  # else the data were prepared anew since
    return data_input(dataset, sha256, read_json(path) if known else None, context)
