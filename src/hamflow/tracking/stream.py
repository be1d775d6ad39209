"""Live metrics: from a job to MLflow on a background thread, which can neither delay nor fail the job."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hamflow.tracking import store
from hamflow.tracking.records import KEY_TAG, curve_points, flatten, identity_tags, run_key, run_name

LINES_A_BATCH = 100
SECONDS_A_BATCH = 3.0
LONGEST_QUEUE = 10_000  # lines; beyond it a store is too slow to follow, and `hamflow publish` completes the run
SECONDS_TO_CLOSE = 1.0
_END = object()


def _import_finders() -> None:
    """Import in this thread what MLflow would import in its own: a finder of packages, which is half made for a moment.

    A job that asks for a version in that moment would fail (NameError: PathDistribution).
    """
    with suppress(ImportError):
        import importlib_metadata  # noqa: F401


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class RunStream:
    """Sends lines of train.jsonl to MLflow in batches. The JSONL is the truth; this is a view of it.

    Where MLflow or the store is missing, one line is printed and every call does nothing. Where the store
    fails or is slow, likewise; `hamflow publish` completes the run later. No call raises, and none takes more
    than a second.

    Args:
        key: the run's key (`run_key`); a run of that key is continued, without repeating the points it has.
        uri: MLflow's store; MLFLOW_TRACKING_URI overrides it; empty for none.
        experiment: MLflow's experiment.
        params: parameters, nested; logged under dotted names.
        tags: texts.
        name: how MLflow's pages call the run.
        say: takes the one line that is printed.
    """

    def __init__(
        self,
        key: str,
        uri: str,
        experiment: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        name: str = "",
        say: Callable[[str], None] = _print,
    ):
        self.key, self.uri, self.experiment = key, store.resolve_uri(uri), experiment
        self.params, self.tags, self.name = flatten(params), {KEY_TAG: key, **tags}, name
        self._say, self._status = say, "FINISHED"
        self._lines: queue.Queue = queue.Queue(LONGEST_QUEUE)
        self._thread = None
        if reason := store.why_unavailable(self.uri):
            say(f"MLflow: no live metrics: {reason}; train.jsonl has them")
        else:
            _import_finders()
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()

    @classmethod
    def of_training(
        cls,
        *,
        preset: str,
        dataset: str,
        method: str,
        seed: int,
        spec: Mapping[str, Any],
        uri: str,
        experiment: str,
        say: Callable[[str], None] = _print,
    ) -> "RunStream":
        """The stream of one training run, with the key, parameters and tags that `publish` gives it."""
        return cls(
            run_key(preset, dataset, method, seed, spec),
            uri,
            experiment,
            spec,
            identity_tags(preset, dataset, method, seed),
            run_name(dataset, method, seed),
            say,
        )

    def log(self, record: Mapping[str, Any]) -> None:
        """Queue one line of train.jsonl; returns at once."""
        if self._thread is not None and self._thread.is_alive():
            with suppress(queue.Full):  # what is left out here, publish completes
                self._lines.put_nowait(dict(record))

    def close(self, status: str = "FINISHED") -> None:
        """Send what is queued, for at most a second, and give the run a status of MLflow's. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._status = status
        try:
            self._lines.put_nowait(_END)
        except queue.Full:
            return
        thread.join(SECONDS_TO_CLOSE)

    def __enter__(self) -> "RunStream":
        return self

    def __exit__(self, kind: type | None, *_exception: object) -> None:
        self.close("FINISHED" if kind is None else "FAILED")

    def _work(self) -> None:
        try:
            self._follow()
        except Exception as error:  # whatever the store did, the job goes on
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"MLflow: live metrics end here: {first_line}; train.jsonl goes on, for `hamflow publish`")

    def _follow(self) -> None:
        client = store.connect(self.uri)
        run = self._open(client)
        known = None  # of a run that is continued: the points it has
        ended = False
        while not ended:
            records, ended = self._collect()
            points = [point for record in records for point in curve_points(record)]
            if known is None:
                known = store.known_points(client, run, {point.name for point in points})
            store.write(client, run.info.run_id, [point for point in points if point not in known])
        client.set_terminated(run.info.run_id, self._status)

    def _open(self, client: Any) -> Any:
        """Find or make the run, and give it its parameters and tags."""
        experiment = store.experiment_id(client, self.uri, self.experiment)
        run = store.find_run(client, experiment, self.key)
        if run is None:
            run = client.create_run(experiment, run_name=self.name or None, tags=self.tags)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        store.write(client, run.info.run_id, params=self.params)
        return run

    def _collect(self) -> tuple[list[Mapping[str, Any]], bool]:
        """The next lines: a hundred, or those of three seconds, or what is left when the job has ended."""
        records: list[Mapping[str, Any]] = []
        deadline = None
        while len(records) < LINES_A_BATCH:
            try:
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                record = self._lines.get(timeout=wait)
            except queue.Empty:
                break
            if record is _END:
                return records, True
            deadline = deadline or time.monotonic() + SECONDS_A_BATCH
            records.append(record)
        return records, False
