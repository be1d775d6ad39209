"""Back-fill MLflow from the files of a preset, any number of times, without repeating anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hamflow.errors import DataError
from hamflow.files import fingerprint, sha256_of
from hamflow.tracking import store
from hamflow.tracking.gather import Run, gather
from hamflow.tracking.records import KEY_TAG

CONTENT_TAG = "hamflow.published"  # fingerprint of what was published last: a run whose content is equal is skipped
ARTEFACTS = ("tables", "figures")


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


def publish(results: str | Path, checkpoints: str | Path, uri: str, experiment: str) -> Summary:
    """One MLflow run for each (preset, dataset, method, seed), below a parent run with tables and figures.

    A run is found by its key, so that publishing again changes nothing, and runs that were streamed in part
    are completed: parameters from the training spec, curves at step = images seen, metrics as
    `<metric>/<sampler>` at step = NFE, provenance as tags. An absent SQLite store is created.

    Args:
        results: results/<preset>; the folder's name is the preset.
        checkpoints: checkpoints/<preset>.
        uri: MLflow's store; MLFLOW_TRACKING_URI overrides it.
        experiment: MLflow's experiment.
    Raises:
        TrackingError: no MLflow, or a store that refuses.
        CheckpointError, DataError: a file that cannot be read; nothing to publish.
    """
    results, uri = Path(results), store.require_usable(uri)
    runs, missing = gather(results, Path(checkpoints))
    if not runs:
        raise DataError(
            f"there is nothing to publish: no checkpoints in {checkpoints} and no bound in {results}",
            fix="run the experiment first, or fetch it: `dvc checkout`",
        )
    store.init_store(uri, experiment)
    with store.locked(uri), store.explained(uri):
        return _Publication(uri, experiment, missing).write(results, runs)


class _Publication:
    """One pass over a store whose runs were listed once."""

    def __init__(self, uri: str, experiment: str, missing: list[str]):
        self.client = store.connect(uri)
        self.experiment = store.experiment_id(self.client, uri, experiment)
        self.existing = store.find_runs(self.client, self.experiment)
        self.summary = Summary(missing=missing)

    def write(self, results: Path, runs: list[Run]) -> Summary:
        files = [path for folder in ARTEFACTS for path in sorted((results / folder).glob("*")) if path.is_file()]
        hashes = {f"{path.parent.name}/{path.name}": sha256_of(path) for path in files}
        tags = {"hamflow.preset": results.name, "hamflow.artefacts": fingerprint(hashes)}
        parent = Run(fingerprint({"preset": results.name, "parent": True}), results.name, {}, tags)
        parent_id = self._upsert(parent, files)
        for run in runs:
            run.tags["mlflow.parentRunId"] = parent_id
            self._upsert(run)
        return self.summary

    def _upsert(self, run: Run, files: Sequence[Path] = ()) -> str:
        """Create the run if absent; unless its content is there already, give it all. Returns its id."""
        found = self.existing.get(run.key)
        if found is not None and found.data.tags.get(CONTENT_TAG) == run.content:
            self.summary.unchanged += 1
            return found.info.run_id
        if found is None:
            found = self.client.create_run(self.experiment, run_name=run.name, tags={KEY_TAG: run.key})
            self.summary.created += 1
        else:
            self.summary.completed += 1
        run_id = found.info.run_id
        for path in files:
            self.client.log_artifact(run_id, str(path), path.parent.name)
        known = store.known_points(self.client, found, {point.name for point in run.points})
        new = [point for point in run.points if point not in known]
        # The content tag comes with the last points: a publication that is cut short is taken up again.
        store.write(self.client, run_id, new, run.params, run.tags | {CONTENT_TAG: run.content})
        self.summary.points += len(new)
        if found.info.status != "FINISHED":
            self.client.set_terminated(run_id)
        return run_id
