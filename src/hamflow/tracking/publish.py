"""Back-fill MLflow from the files of a preset, any number of times, without repeating anything."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.files import fingerprint, sha256_of
from hamflow.pipeline.paths import CIRCUMSTANCES, Preset
from hamflow.tracking import store
from hamflow.tracking.gather import Run, gather
from hamflow.tracking.records import KEY_TAG

CONTENT_TAG = "hamflow.published"  # fingerprint of the content published last: a run with equal content is skipped
ARTEFACTS = ("tables", "figures", "studies")  # folders of the preset: of the artefacts


@dataclass
class Summary:
    """What a publication did: numbers of runs and metric points; runs left out for want of a checkpoint."""

    created: int = 0
    completed: int = 0
    unchanged: int = 0
    points: int = 0
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = (
            f"{self.created} runs created, {self.completed} completed, {self.unchanged} unchanged; "
            f"{self.points} metric points written"
        )
        if self.missing:
            text += f"\nleft out, for want of a checkpoint (`dvc checkout`?): {', '.join(self.missing)}"
        return text


def publish(preset: Preset, uri: str, experiment: str) -> Summary:
    """One MLflow run for each (preset, dataset, method, seed), below runs for the method, the data set and the preset.

    A run is found by its key, so that publishing again changes nothing, and runs that were streamed in part
    are completed: parameters from the training spec, curves at step = images seen, metrics as
    `<metric>/<sampler>` at step = NFE, provenance as tags, the data set as an input, the checkpoint as a version of a
    registered model. The preset's run has the tables and figures. An absent SQLite store is created.

    Args:
        preset: its folders.
        uri: MLflow's store; MLFLOW_TRACKING_URI overrides it.
        experiment: MLflow's experiment; MLFLOW_EXPERIMENT_NAME overrides it.
    Raises:
        TrackingError: no MLflow, or a store that is away or refuses.
        CheckpointError, DataError: a file that cannot be read; nothing to publish.
    """
    uri, experiment = store.require_usable(uri), store.resolve_experiment(experiment)
    runs, missing = gather(preset)
    if not runs:
        raise DataError(
            f"there is nothing to publish: no checkpoints in {preset.checkpoints} and no bound in {preset.results}",
            fix="run the experiment first, or fetch it: `dvc checkout`",
        )
    store.init_store(uri)
    store.require_answer(uri)
    with store.locked(uri), store.explained(uri):
        publication = _Publication(uri, experiment, missing)
        publication.write_preset(preset)
        for run in runs:
            publication.write(run)
        return publication.summary


class _Publication:
    """One pass over a store whose runs were listed once."""

    def __init__(self, uri: str, experiment: str, missing: list[str]):
        self.client = store.connect(uri)
        self.experiment = store.experiment_id(self.client, uri, experiment)
        self.existing = store.find_runs(self.client, self.experiment)
        self.summary = Summary(missing=missing)
        self._ids: dict[tuple[str, ...], str] = {}  # of the runs under which others stand, by place

    def write_preset(self, preset: Preset) -> None:
        """The run of the whole preset, with its tables, figures and studies."""
        found = [(path, name) for name in ARTEFACTS for path in sorted((preset.results / name).glob("*")) if path.is_file()]
        files = [(path, name) for path, name in found if not path.name.endswith(f".{CIRCUMSTANCES}")]
        run = Run.group(preset.name)
        run.tags["hamflow.artefacts"] = fingerprint({f"{name}/{path.name}": sha256_of(path) for path, name in files})
        self._ids[run.place] = self._upsert(run, files)

    def write(self, run: Run) -> str:
        """A run, and before it those under which it stands. Returns its id."""
        above = run.place[:-1]
        if above not in self._ids:
            self._ids[above] = self.write(Run.group(*above))
        run.tags["mlflow.parentRunId"] = self._ids[above]
        return self._upsert(run)

    def _upsert(self, run: Run, files: list[tuple[Path, str]] | None = None) -> str:
        """Create the run if absent; unless it is complete already, give it all. Returns its id."""
        found = self.existing.get(run.key)
        if found is not None and _is_complete(found, run):
            self.summary.unchanged += 1
            return found.info.run_id
        points = run.points + run.speeds
        known = store.known_points(self.client, found, {point.name for point in points}) if found else set()
        if found and store.retrained(points, known):
            self.client.delete_run(found.info.run_id)  # `mlflow runs restore` has it back
            found, known = None, set()
        if found is None:
            found = self.client.create_run(self.experiment, run_name=run.name, tags={KEY_TAG: run.key})
            self.summary.created += 1
        else:
            self.summary.completed += 1
        run_id = found.info.run_id
        for path, folder in files or []:
            self.client.log_artifact(run_id, str(path), folder)
        self._link(run_id, run)
        new = [point for point in points if point not in known]
        # The content tag comes with the last points: a publication that is cut short is taken up again.
        store.write(self.client, run_id, new, run.params, run.tags | run.circumstances | {CONTENT_TAG: run.content})
        self.summary.points += len(new)
        if found.info.status != "FINISHED":
            self.client.set_terminated(run_id)
        return run_id

    def _link(self, run_id: str, run: Run) -> None:
        """The data set that went in, and the checkpoint that came out."""
        if run.data is not None:
            store.log_data(self.client, run_id, run.data)
        if run.checkpoint is not None:
            name = "-".join(("hamflow", *run.place[:-1]))
            tags = {"hamflow.seed": run.tags["hamflow.seed"]}
            store.register_checkpoint(self.client, run_id, name, run.checkpoint.path, run.checkpoint.sha256, tags)


def _is_complete(found: Any, run: Run) -> bool:
    """Whether a run in the store has all of this one. Of circumstances (commit, host, seconds) only the names count."""
    tags, metrics = found.data.tags, found.data.metrics
    names = {point.name for point in run.speeds}
    return tags.get(CONTENT_TAG) == run.content and run.circumstances.keys() <= tags.keys() and names <= metrics.keys()
