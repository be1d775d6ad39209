"""Streaming: the same points as publishing, and never in the job's way."""

import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from hamflow.tracking import RunStream, publish, read_jsonl
from hamflow.tracking.stream import SECONDS_TO_CLOSE


@pytest.fixture
def stream(spec):
    def start(uri: str, said: list[str]) -> RunStream:
        run = {"preset": "toy", "dataset": "digits", "method": "edm", "seed": 0, "spec": spec("edm")}
        return RunStream.of_training(**run, uri=uri, experiment="test", say=said.append)

    return start


def finish(live: RunStream) -> None:
    """Close, then wait for what a job would not wait for."""
    thread = live._thread
    live.close()
    if thread is not None:
        thread.join()


def test_a_run_streamed_in_part_and_published_equals_one_published_only(tmp_path, store, stream, make_preset, rows):
    results, checkpoints = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    uri, said = f"sqlite:///{store}", []
    records = read_jsonl(checkpoints / "digits/edm/seed0/train.jsonl")
    for part in (records[:2], records[1:3]):  # a second job resumes one line before the first one's end
        live = stream(uri, said)
        for record in part:
            live.log(record)
        finish(live)
    assert said == []
    assert len(rows("runs")) == 1
    assert len(rows("metrics")) == 3

    summary = publish(results, checkpoints, uri, "test")
    assert summary.completed == 1
    published_only = tmp_path / "other.db"
    publish(results, checkpoints, f"sqlite:///{published_only}", "test")

    def points(path):
        with sqlite3.connect(path) as connection:
            return sorted(connection.execute("SELECT key, value, step FROM metrics"))

    def facts(path):
        with sqlite3.connect(path) as connection:
            params = sorted(connection.execute("SELECT key, value FROM params"))
            names = sorted(connection.execute("SELECT name, status FROM runs"))
        return params, names

    assert points(store) == points(published_only)
    assert facts(store) == facts(published_only)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "no store is configured"),
        ("sqlite:///{folder}/absent.db", "no store"),
        ("{folder}/mlruns", "file store"),
    ],
)
def test_without_a_store_one_line_is_said_and_nothing_happens(tmp_path, stream, uri, reason):
    said = []
    live = stream(uri.format(folder=tmp_path), said)
    live.log({"kimg": 1.0, "loss": 1.0})
    live.close()
    assert len(said) == 1
    assert reason in said[0]
    assert list(tmp_path.iterdir()) == []


def test_without_mlflow_one_line_is_said(store, stream, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    stream(f"sqlite:///{store}", said).close()
    assert len(said) == 1
    assert "not installed" in said[0]


def test_a_locked_store_neither_raises_nor_delays(store, stream):
    said = []
    with sqlite3.connect(store) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        live = stream(f"sqlite:///{store}", said)
        thread = live._thread
        for k in range(20_000):  # more than the queue holds
            live.log({"kimg": float(k), "loss": 1.0})
        live.close()
        assert time.monotonic() - start < SECONDS_TO_CLOSE + 1
        thread.join()
        holder.rollback()
    assert len(said) == 1
    assert "locked" in said[0]


def test_a_corrupted_store_neither_raises_nor_is_repaired(store, stream):
    store.write_bytes(b"not a database" * 100)
    said = []
    live = stream(f"sqlite:///{store}", said)
    live.log({"kimg": 1.0, "loss": 1.0})
    finish(live)
    assert len(said) == 1
    assert store.read_bytes() == b"not a database" * 100


@pytest.mark.parametrize("pause", [0.0, 0.7])
def test_a_job_that_ends_while_mlflow_is_still_imported_ends_well(store, pause):
    """The daemon thread must not turn the interpreter's exit into a crash."""
    job = f"""
        import time
        from hamflow.tracking import RunStream
        with RunStream("key", "sqlite:///{store}", "test", {{}}, {{}}) as live:
            live.log({{"kimg": 1.0, "loss": 1.0}})
            time.sleep({pause})
        print("done")
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(job)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    assert "Fatal" not in ended.stderr


def test_the_job_itself_imports_no_mlflow():
    code = "import sys, hamflow.tracking; print({'mlflow', 'torch', 'filelock'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
