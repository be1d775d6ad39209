"""The process beside a job that sends its lines to MLflow, started and spoken to by `hamflow.tracking.RunStream`.

On standard input: a line that names the run, lines of train.jsonl, a line {"status": ...}; each is JSON. On standard
output: nothing, or one line that says why it gave up.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from hamflow.tracking import store
from hamflow.tracking.records import KEY_TAG, Point, curve_points

LINES_A_BATCH = 100
SECONDS_A_BATCH = 3.0
SECONDS_ALONE = 10  # after a job that was killed
NICENESS = 10  # MLflow's import takes seconds of a processor, which the jobs need more


def main() -> None:
    """Follow one job to its end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a scheduler sends it to all; the job says how it ended
    os.nice(NICENESS)
    answer, sys.stdout = sys.stdout, sys.stderr  # MLflow prints, too
    lines: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        follow(lines)
    except Exception as error:  # a fault of the store never stops the job; one line reports it
        print(f"live metrics end here: {store.first_line(error)}; train.jsonl goes on, for `hamflow publish`", file=answer)
    answer.flush()


def _read(lines: queue.SimpleQueue) -> None:
    """Take the lines as they come, so that the job's pipe never fills while the store is slow."""
    line: dict[str, Any] = {}
    try:
        for text in sys.stdin:
            lines.put(line := json.loads(text))
    finally:
        if "status" not in line:  # the job was killed
            lines.put({"status": "KILLED"})
            signal.alarm(SECONDS_ALONE)


def follow(lines: queue.SimpleQueue) -> None:
    """Open the run that the first line names; send the lines that follow, up to one with a status."""
    run = _Follower(lines.get())
    status = None
    while status is None:
        records, status = _collect(lines)
        run.send(records)
    run.end(status)


class _Follower:
    """A run in the store that grows."""

    def __init__(self, header: Mapping[str, Any]):
        uri = header["uri"]
        if reason := store.why_away(uri):
            raise store.TrackingError(reason)
        self.client = store.connect(uri)
        self.header, self.experiment = header, store.experiment_id(self.client, uri, header["experiment"])
        self.run = store.find_run(self.client, self.experiment, header["key"])
        if self.run is not None:
            self.client.update_run(self.run.info.run_id, status="RUNNING")
        self._open()
        self.known: set[Point] | None = None  # of a run that is continued: the points it has

    def _open(self) -> None:
        """Create the run if there is none, and write its parameters."""
        if self.run is None:
            tags = {KEY_TAG: self.header["key"], **self.header["tags"]}
            self.run = self.client.create_run(self.experiment, run_name=self.header["name"] or None, tags=tags)
        self.id = self.run.info.run_id
        store.write(self.client, self.id, params=self.header["params"])

    def send(self, records: list[Mapping[str, Any]]) -> None:
        """Write the points that the run has not."""
        points = [point for record in records for point in curve_points(record)]
        known = self.known
        if known is None:
            known = self.known = store.known_points(self.client, self.run, {point.name for point in points})
            if store.retrained(points, known):
                self.client.delete_run(self.id)  # `mlflow runs restore` has it back
                self.run, known, self.known = None, set(), set()
                self._open()
        store.write(self.client, self.id, [point for point in points if point not in known])

    def end(self, status: str) -> None:
        """Give the run a status of MLflow's."""
        self.client.set_terminated(self.id, status)


def _collect(lines: queue.SimpleQueue) -> tuple[list[Mapping[str, Any]], str | None]:
    """The next lines (a hundred, those of three seconds, or the rest when the job has ended), and how the job ended."""
    records: list[Mapping[str, Any]] = []
    deadline = None
    while len(records) < LINES_A_BATCH:
        try:
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            record = lines.get(timeout=wait)
        except queue.Empty:
            break
        if "status" in record:
            return records, record["status"]
        deadline = deadline or time.monotonic() + SECONDS_A_BATCH
        records.append(record)
    return records, None


if __name__ == "__main__":
    main()
    os._exit(0)  # the threads of MLflow and of the reader would keep the interpreter from ending
