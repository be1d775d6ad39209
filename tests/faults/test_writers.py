"""Many writers at once, and writers that are killed: of one file, of one run, of one store."""

import json
import multiprocessing
import os
import queue
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hamflow import files
from hamflow.pipeline.paths import Preset
from hamflow.pipeline.provenance import run_key
from hamflow.tracking import JsonlLog, RunStream, follower, init_store, publish, read_jsonl
from hamflow.tracking.records import identity_tags

JOBS = 200
WRITERS = 25  # to one store; each costs MLflow a second or so of a processor
FORK = multiprocessing.get_context("fork")  # so that no process pays for importing torch and MLflow again


def run_all(target, arguments, timeout=120):
    """Start a process for each set of arguments, all at once; their exit codes."""
    processes = [FORK.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def overwrite(path, index, start, enough):
    start.wait()
    files.write_text(path, json.dumps([index] * 20_000))
    while not enough.is_set():
        files.write_text(path, json.dumps([index] * 20_000))


@pytest.mark.slow
def test_200_writers_of_one_file_leave_one_of_their_files_whole(tmp_path):
    """And whoever reads meanwhile reads a whole one."""
    path, start, enough = tmp_path / "result.json", FORK.Barrier(JOBS + 1), FORK.Event()
    files.write_text(path, json.dumps([-1] * 20_000))
    processes = [FORK.Process(target=overwrite, args=(path, index, start, enough)) for index in range(JOBS)]
    for process in processes:
        process.start()
    start.wait()
    seen = set()
    while any(process.is_alive() for process in processes):
        content = files.read_json(path)
        assert len(content) == 20_000
        assert len(set(content)) == 1
        seen.add(content[0])
        if len(seen) > 1:
            enough.set()
    assert {process.exitcode for process in processes} == {0}
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def hold(path, log, seconds):
    with files.exclusive(path):
        with open(log, "a") as file:
            file.write("in\n")
        time.sleep(seconds)
        with open(log, "a") as file:
            file.write("out\n")


def test_a_lock_has_one_holder_at_a_time_and_leaves_no_file(tmp_path):
    assert set(run_all(hold, [(tmp_path / "folder" / "lock", tmp_path / "log", 0.002)] * 40)) == {0}
    assert (tmp_path / "log").read_text() == "in\nout\n" * 40
    assert not any(tmp_path.glob("folder/*"))


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_goes_while_it_is_made_is_made_again(tmp_path, monkeypatch, error):
    """As `mkdir` finds the folder, its last holder removes it; or before the lock in it is opened."""
    mkdir, failures = Path.mkdir, [error()]

    def fails_once(path, *arguments, **options):
        if failures:
            raise failures.pop()
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", fails_once)
    with files.exclusive(tmp_path / "folder" / "lock") as waited:
        assert not waited
    assert failures == []


def test_a_file_in_the_place_of_the_lock_s_folder_is_an_error(tmp_path):
    (tmp_path / "folder").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link"):
        with pytest.raises(FileExistsError), files.exclusive(tmp_path / name / "lock"):
            pass


def test_the_lock_of_a_killed_holder_is_free(tmp_path, capsys):
    process = FORK.Process(target=hold, args=(tmp_path / "lock", tmp_path / "log", 60))
    process.start()
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    with files.exclusive(tmp_path / "lock") as waited:
        assert not waited
    assert "waiting" not in capsys.readouterr().err
    assert not (tmp_path / "lock").exists()


def test_what_a_killed_writer_left_is_removed_in_time_and_what_lives_is_not(tmp_path):
    path = tmp_path / "model.safetensors"
    left, living = tmp_path / ".model.safetensors.1-ab.tmp.safetensors", tmp_path / ".model.safetensors.2-cd.tmp.safetensors"
    other = tmp_path / ".state.safetensors.1-ab.tmp.safetensors"
    for file in (left, living, other):
        file.write_bytes(b"half")
    for file in (left, other):
        os.utime(file, (time.time() - 7200,) * 2)
    with files.atomic(path) as temporary:
        temporary.write_bytes(b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([living.name, other.name, path.name])


def test_a_writer_killed_at_any_instant_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "array.npy"
    old, new = np.zeros(300_000), np.ones(300_000)
    outcomes = set()
    for instant in np.linspace(0, 0.03, 25):
        files.save_array(path, old)
        process = FORK.Process(target=files.save_array, args=(path, new))
        process.start()
        time.sleep(instant)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = np.load(path)
        assert np.array_equal(found, old) or np.array_equal(found, new)
        outcomes.add(float(found[0]))
    assert 0.0 in outcomes


# --- 200 jobs that report to one store ------------------------------------------------------------------------------

SPEC = {"dataset": "digits", "conditional": False, "flow": {"name": "oscillation"}, "method": "edm"}
RECORDS = [{"kimg": float(line), "loss": 1 / line} for line in range(1, 21)]


def folder_of(root, seed):
    return Path(root, "checkpoints", "toy", "digits", "edm", f"seed{seed}")


def save_checkpoint(root, seed):
    metadata = {"spec": SPEC, "seed": seed, "kimg": 20.0, "data_sha256": "0" * 64, "parameters": 3}
    files.save_tensors(folder_of(root, seed) / "model.safetensors", {"weight": torch.full((3,), float(seed))}, metadata)


def tiny_job(root, uri, seed, start):
    """What a training does but for training: a log of its own, a stream to the common store, and a checkpoint."""
    identity = {"preset": "toy", "dataset": "digits", "method": "edm", "seed": seed}
    start.wait()
    stream = RunStream.of_training(**identity, spec=SPEC, uri=uri, experiment="load", say=lambda _line: None)
    with stream, JsonlLog(folder_of(root, seed) / "train.jsonl") as log:
        for record in RECORDS:
            log.append(record)
            stream.log(record)
    save_checkpoint(root, seed)


def write_to_store(uri, seed, start):
    """The process beside such a job, with MLflow imported before: all of them meet in the store."""
    key, tags = run_key("toy", "digits", "edm", seed, SPEC), identity_tags("toy", "digits", "edm", seed)
    lines = queue.SimpleQueue()
    for line in [
        {"key": key, "uri": uri, "experiment": "load", "name": "x", "params": {}, "tags": tags},
        *RECORDS,
        {"status": "FINISHED"},
    ]:
        lines.put(line)
    start.wait()
    try:
        follower.follow(lines)
    except Exception:  # the store was too busy, which the job is told in one line
        sys.exit(3)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        init_store(f"sqlite:///{path}")
        yield path


@pytest.fixture
def uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.slow
def test_200_jobs_at_once_all_end_well(tmp_path, uri):
    start = FORK.Barrier(JOBS)
    assert set(run_all(tiny_job, [(tmp_path, uri, seed, start) for seed in range(JOBS)])) == {0}
    for seed in range(JOBS):
        assert read_jsonl(folder_of(tmp_path, seed) / "train.jsonl") == RECORDS
        assert float(files.load_tensors(folder_of(tmp_path, seed) / "model.safetensors")[0]["weight"][0]) == seed


def test_writers_that_meet_in_one_store_neither_break_nor_double_anything(tmp_path, uri):
    """Whom the store is too busy for gives up; what is missing then, `publish` completes, once."""

    def rows(query):
        with sqlite3.connect(tmp_path / "mlflow.db") as store:
            return store.execute(query).fetchall()

    for seed in range(WRITERS):
        with JsonlLog(folder_of(tmp_path, seed) / "train.jsonl") as log:
            for record in RECORDS:
                log.append(record)
        save_checkpoint(tmp_path, seed)
    start = FORK.Barrier(WRITERS)
    codes = run_all(write_to_store, [(uri, seed, start) for seed in range(WRITERS)])
    assert set(codes) <= {0, 3}
    assert 0 in codes
    assert rows("PRAGMA integrity_check") == [("ok",)]
    arguments = (Preset("toy", tmp_path), uri, "load")
    publish(*arguments)
    assert rows("SELECT count(*), count(DISTINCT value) FROM tags WHERE key = 'hamflow.seed'") == [(WRITERS, WRITERS)]
    assert rows("SELECT count(*) FROM metrics") == [(WRITERS * len(RECORDS),)]
    again = publish(*arguments)
    assert (again.created, again.completed, again.points) == (0, 0, 0)
