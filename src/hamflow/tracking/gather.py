"""What the folders of a preset say of its runs: curves, metrics and checkpoint metadata, for MLflow."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hamflow.errors import CheckpointError, DataError
from hamflow.files import fingerprint, load_metadata, read_json, sha256_of
from hamflow.pipeline import records
from hamflow.pipeline.paths import BOUND, CIRCUMSTANCES, Preset
from hamflow.pipeline.paths import Run as Place
from hamflow.pipeline.provenance import read_circumstances, run_key
from hamflow.pipeline.records import Record
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
)

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
        circumstances: tags that differ between equal runs: commit, host, seconds. DVC does not carry them, so they exist only
            where the run was made. speeds: likewise, as points.
    """

    key: str
    place: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    circumstances: dict[str, str] = field(default_factory=dict)
    speeds: list[Point] = field(default_factory=list)
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


def gather(preset: Preset) -> tuple[list[Run], list[str]]:
    """The runs of a preset, and the names of those left out because their checkpoint is missing.

    Raises:
        CheckpointError, DataError: a file that is truncated or not ours.
    """
    runs, missing = [], []
    for place in preset.runs():
        files = _Files(place)
        if place.method != BOUND and not place.checkpoint.exists():
            missing.append(place.name)
        else:
            runs.append(_run(files))
    return runs, missing


class _Files:
    """What there is of one run."""

    def __init__(self, place: Place):
        self.place = place

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Of the checkpoint; empty where real data are measured."""
        return load_metadata(self.place.checkpoint) if self.place.checkpoint.exists() else {}

    @cached_property
    def records(self) -> list[Record]:
        """The metrics, in order of their names."""
        return [records.read(path) for path in records.find([self.place.metrics])]

    @property
    def circumstances(self) -> dict[str, Any]:
        """Commit, host and seconds of the training or, where nothing was trained, of the evaluation."""
        if self.place.checkpoint.exists():
            return read_circumstances(self.place.checkpoints / CIRCUMSTANCES)
        return read_circumstances(self.place.metrics / CIRCUMSTANCES).get("evaluation", {})

    @property
    def data_sha256(self) -> str:
        """Of the data set's manifest; empty where no file names it."""
        known = (self.metadata, *(record.provenance for record in self.records))
        return next((facts["data_sha256"] for facts in known if "data_sha256" in facts), "")

    def history(self) -> list[dict[str, Any]]:
        """The reports of the training that the checkpoint holds, else those of train.jsonl."""
        return self.metadata["history"] if "history" in self.metadata else self.log()

    def log(self) -> list[dict[str, Any]]:
        """The lines of train.jsonl, which also has the speeds; empty where it is not there."""
        path = self.place.log
        try:
            return read_jsonl(path) if path.exists() else []
        except ValueError as error:
            raise DataError(f"{path} is not a training log: {error}", fix="delete it, or train again") from error


def _run(files: _Files) -> Run:
    """All of one run. Raises CheckpointError for metadata that are not those of a training here."""
    try:
        run = _described(files)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{files.place.checkpoint} has metadata that hamflow did not write: {type(error).__name__}: {error}",
            fix="delete it and train again, or fetch it anew with `dvc checkout`",
        ) from error
    _add_circumstances(run, files)
    return run


def _described(files: _Files) -> Run:
    """What equal work repeats of a run."""
    place, metadata = files.place, files.metadata
    spec = metadata.get("spec")
    facts = flatten({name: metadata[name] for name in FACTS if name in metadata}, "hamflow.")
    identity = (place.preset.name, place.dataset, place.method, place.seed)
    points = (point for record in files.records for point in metric_points(record))
    run = Run(
        key=run_key(*identity, spec),
        place=(*identity[:3], f"seed{place.seed}"),
        params=flatten(spec or {}),
        tags=identity_tags(*identity) | facts,
        points=_unique(_curve(files.history(), place.checkpoint), points),
    )
    if files.data_sha256:
        context = "evaluation" if place.method == BOUND else "training"
        run.data = _data_input(place.dataset, files.data_sha256, place.data, context)
    if place.checkpoint.exists():
        run.checkpoint = Checkpoint(place.checkpoint, sha256_of(place.checkpoint))
    return run


def _add_circumstances(run: Run, files: _Files) -> None:
    """Add what differs between equal runs, unless train.jsonl and run.json are of another training than the checkpoint.

    DVC versions the checkpoint alone: after a retraining and `dvc checkout` of the earlier weights, the later training's
    files lie beside them. But for the speeds, a log of the same training has the checkpoint's own curve.
    """
    curve, log = set(_curve(files.history(), files.place.checkpoint)), set(_curve(files.log(), files.place.log))
    names = {point.name for point in curve}
    ours = curve == {point for point in log if point.name in names}
    if ours or not log:  # without a log, nothing speaks against run.json
        run.circumstances = _tags(files.circumstances)
    if ours:
        run.speeds = _unique(log - curve)


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


def _tags(circumstances: Mapping[str, Any]) -> dict[str, str]:
    tags = flatten({key: value for key, value in circumstances.items() if value is not None}, "hamflow.")
    if "hamflow.git_commit" in tags:
        tags["mlflow.source.git.commit"] = tags["hamflow.git_commit"]
    return tags


def _data_input(dataset: str, sha256: str, folder: Path, context: str) -> DataInput:
    path = folder / "dataset.json"
    known = path.exists() and sha256_of(path) == sha256  # else the data were prepared anew since
    return data_input(dataset, sha256, read_json(path) if known else None, context)
