"""Live metrics: from a job to MLflow through a process beside it, which can neither delay nor fail the job."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hamflow.files import canonical_json
from hamflow.pipeline.provenance import run_key
from hamflow.tracking import store
from hamflow.tracking.records import flatten, identity_tags, run_name

SECONDS_TO_CLOSE = 0.6  # together with starting the process and killing it: less than a second
SECONDS_TO_DIE = 0.2  # of a process that was killed
ENDED = "live metrics end here: their process ended with {}; `hamflow publish` completes the run"
LATE = "the store did not take everything in time; `hamflow publish` completes the run"


def _print(line: str) -> None:
    print(f"MLflow: {line}", file=sys.stderr, flush=True)


class RunStream:
    """Sends lines of train.jsonl to MLflow in batches. The JSONL is the truth; this is a view of it.

    A process of its own does it (`hamflow.tracking.follower`): MLflow's import takes seconds, and in a thread would keep
    the interpreter from the job for as long. Where MLflow or the store is missing, one line is printed and every call
    does nothing. Where the store fails or is slow, likewise; `hamflow publish` completes the run later. No call raises;
    `log` returns at once, `close` within about a second.

    Args:
        key: the run's key (`run_key`); a run of that key is continued, without repeating the points it has.
        uri: MLflow's store; MLFLOW_TRACKING_URI overrides it; empty for none.
        experiment: MLflow's experiment; MLFLOW_EXPERIMENT_NAME overrides it.
        params: parameters, nested; logged under dotted names.
        tags: texts.
        name: how MLflow's pages call the run.
        say: takes the one line that is printed.
        patience: seconds that `close` waits for the store.
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
        patience: float = SECONDS_TO_CLOSE,
    ):
        self._say, self._patience = say, patience
        self._process: Any = None  # a subprocess.Popen with pipes
        uri = store.resolve_uri(uri)
        if reason := store.why_unavailable(uri):
            say(f"no live metrics: {reason}; train.jsonl has them")
            return
        experiment = store.resolve_experiment(experiment)
        header = {"key": key, "uri": uri, "experiment": experiment, "name": name, "params": flatten(params), "tags": dict(tags)}
        try:
            self._process = _start()
        except OSError as error:
            say(f"no live metrics: {error}; train.jsonl has them")
        self._send(header)

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
        experiment: str = store.DEFAULT_EXPERIMENT,
        say: Callable[[str], None] = _print,
        patience: float = SECONDS_TO_CLOSE,
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
            patience,
        )

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass on one line of train.jsonl; returns at once."""
        self._send(dict(record))

    def close(self, status: str = "FINISHED") -> None:
        """Wait until everything is sent, for at most a second, and give the run a status of MLflow's. Idempotent."""
        self._send({"status": status})
        process, self._process = self._process, None
        if process is not None:
            self._end(process, self._patience)

    def __enter__(self) -> "RunStream":
        return self

    def __exit__(self, kind: type | None, *_exception: object) -> None:
        self.close("FINISHED" if kind is None else "FAILED")

    def _send(self, line: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        try:
            os.write(self._process.stdin.fileno(), canonical_json(line).encode() + b"\n")
        except (BlockingIOError, ValueError):
            pass  # the pipe is full, or the record is no line of JSON: `hamflow publish` adds later what is missing
        except BrokenPipeError:
            process, self._process = self._process, None
            self._end(process, self._patience)

    def _end(self, process: Any, patience: float) -> None:
        """Wait for the process, or else kill it; print its last words."""
        try:
            said = process.communicate(timeout=patience)[0].decode().strip()
            if not said and process.returncode:
                said = ENDED.format(process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()  # not left to itself: it would meet the `publish` that completes the run
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_DIE)
            process.stdout.close()
            said = LATE
        if said:
            self._say(said)


def _start() -> Any:
    """The process beside the job, with a pipe to it that never blocks."""
    process: Any = subprocess.Popen(
        [sys.executable, "-P", "-m", "hamflow.tracking.follower"],  # -P: no module is taken from the working directory
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal that interrupts the job must not stop the process from recording it
    )
    os.set_blocking(process.stdin.fileno(), False)
    return process
