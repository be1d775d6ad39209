"""Streaming: the same points as publishing, and never in the job's way."""

import argparse
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from workflows import Workflow, copy_tree

from hamflow.tracking import RunStream, publish, read_jsonl
from hamflow.verbs import train

LONG = 60.0  # seconds that a test waits for MLflow on a busy machine


@pytest.fixture
def stream(spec):
    def start(uri: str, said: list[str], patience: float = LONG) -> RunStream:
        run = {"preset": "toy", "dataset": "digits", "method": "edm", "seed": 0, "spec": spec("edm")}
        return RunStream.of_training(**run, uri=uri, experiment="test", say=said.append, patience=patience)

    return start


def test_a_run_streamed_in_part_and_published_equals_one_published_only(tmp_path, store, stream, make_preset, rows):
    preset = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    uri, said = f"sqlite:///{store}", []
    records = read_jsonl(preset.checkpoints / "digits/edm/seed0/train.jsonl")
    for part in (records[:2], records[1:3]):  # a second job resumes one line before the first one's end
        with stream(uri, said) as live:
            for record in part:
                live.log(record)
    assert said == []
    assert len(rows("runs")) == 1
    assert len(rows("metrics")) == 3 * 3

    summary = publish(preset, uri, "test")
    assert summary.completed == 1
    published_only = tmp_path / "other.db"
    publish(preset, f"sqlite:///{published_only}", "test")

    def facts(path):
        with sqlite3.connect(path) as connection:
            return [
                sorted(connection.execute(f"SELECT {columns} FROM {table}"))
                for columns, table in (("key, value, step", "metrics"), ("key, value", "params"), ("name, status", "runs"))
            ]

    assert facts(store) == facts(published_only)


def test_a_training_that_is_repeated_to_other_numbers_has_a_run_of_its_own(tmp_path, store, stream, make_preset):
    preset = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    records = read_jsonl(preset.checkpoints / "digits/edm/seed0/train.jsonl")
    for factor in (1, 1, 2):  # repeated to the same numbers, it is the same run
        with stream(f"sqlite:///{store}", []) as live:
            for record in records:
                live.log(record | {"loss": factor * record["loss"]})
    with sqlite3.connect(store) as connection:
        found = connection.execute("SELECT lifecycle_stage FROM runs ORDER BY start_time").fetchall()
        assert found == [("deleted",), ("active",)]
        query = (
            "SELECT count(*) FROM metrics JOIN runs USING (run_uuid) WHERE lifecycle_stage = 'active' AND key = 'train/loss'"
        )
        assert connection.execute(query).fetchone() == (len(records),)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "no store is configured (MLFLOW_TRACKING_URI is not set)"),
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
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = []
    stream(f"sqlite:///{store}", said).close()
    assert len(said) == 1
    assert "not installed" in said[0]


def test_where_no_process_can_be_had_one_line_is_said(store, stream, monkeypatch):
    def refuse(*_arguments, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)
    said = []
    live = stream(f"sqlite:///{store}", said)
    live.log({"kimg": 1.0, "loss": 1.0})
    live.close()
    assert len(said) == 1
    assert "unavailable" in said[0]


def test_where_the_process_ends_by_itself_one_line_is_said(store, stream, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    said = []
    with stream(f"sqlite:///{store}", said) as live:
        live.log({"kimg": 1.0, "loss": 1.0})
    assert len(said) == 1
    assert "ended with 1; `hamflow publish`" in said[0]


def test_no_module_is_taken_from_the_working_directory(tmp_path, store, stream, rows, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with stream(f"sqlite:///{store}", said := []) as live:
        live.log({"kimg": 1.0, "loss": 1.0})
    assert said == []
    assert len(rows("metrics")) == 1


def test_a_run_is_streamed_to_the_experiment_to_which_it_is_published(tmp_path, store, stream, make_preset, rows, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    preset = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    with stream(f"sqlite:///{store}", []) as live:
        live.log(read_jsonl(preset.checkpoints / "digits/edm/seed0/train.jsonl")[0])
    summary = publish(preset, f"sqlite:///{store}", "test")
    assert (summary.created, summary.completed) == (5, 1)
    assert {row[1] for row in rows("experiments")} == {"Default", "mine"}


@pytest.mark.parametrize("given", [{}, {"MLFLOW_EXPERIMENT_NAME": "mine"}])
def test_the_jobs_of_the_workflow_are_told_the_experiment_also_where_the_environment_names_the_store(tmp_path, given):
    workflow = Workflow(copy_tree(tmp_path))
    with open(tmp_path / "Snakefile", "a") as file:
        file.write('\nprint("TOLD", os.environ["MLFLOW_TRACKING_URI"], os.environ.get("MLFLOW_EXPERIMENT_NAME"))\n')
    environment = [f"{name}={value}" for name, value in {"MLFLOW_TRACKING_URI": "http://host:5000", **given}.items()]
    tracking = "tracking={uri: '', experiment: theirs}"
    told = workflow.command("env", *environment, "snakemake", "--list-rules", "--config", tracking).stdout
    assert f"TOLD http://host:5000 {given.get('MLFLOW_EXPERIMENT_NAME', 'theirs')}\n" in told


@pytest.mark.parametrize(("output", "preset"), [("/run", ""), ("{folder}/checkpoints/toy/digits/edm/seed0", "toy")])
def test_a_training_streams_as_the_preset_that_publish_calls_it(tmp_path, spec, monkeypatch, output, preset):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/toy").symlink_to(tmp_path / "elsewhere")
    seen = []
    monkeypatch.setattr(RunStream, "of_training", lambda **run: seen.append(run["preset"]) or RunStream("", "", "", {}, {}))
    monkeypatch.setattr("hamflow.verbs._training.train", lambda *_arguments: None)
    options = argparse.Namespace(device="cpu", keep=False)
    train._train(spec("edm"), tmp_path, 0, Path(output.format(folder=tmp_path)), options, {})
    assert seen == [preset]


def test_a_run_of_no_preset_is_streamed(store, spec, rows):
    said = []
    run = {"preset": "", "dataset": "digits", "method": "edm", "seed": 0, "spec": spec("edm")}
    with RunStream.of_training(**run, uri=f"sqlite:///{store}", experiment="test", say=said.append, patience=LONG) as live:
        live.log({"kimg": 1.0, "loss": 1.0})
    assert said == []
    assert len(rows("metrics")) == 1


def test_a_corrupted_store_neither_raises_nor_is_repaired(store, stream):
    store.write_bytes(b"not a database" * 100)
    said = []
    with stream(f"sqlite:///{store}", said) as live:
        live.log({"kimg": 1.0, "loss": 1.0})
    assert len(said) == 1
    assert "not a database" in said[0]
    assert store.read_bytes() == b"not a database" * 100


@pytest.mark.parametrize("failure", [None, RuntimeError("the training diverged")])
def test_the_status_tells_how_the_job_ended(store, stream, rows, failure):
    try:
        with stream(f"sqlite:///{store}", []) as live:
            live.log({"kimg": 1.0, "loss": 1.0})
            if failure:
                raise failure
    except RuntimeError:
        pass
    (run,) = rows("runs")
    assert ("FAILED" if failure else "FINISHED") in run


JOB = """
    import sys, time
    from hamflow.tracking import RunStream
    with RunStream("key", "sqlite:///{store}", "test", {{}}, {{}}, patience={patience}) as live:
        for k in range({lines}):
            live.log({{"kimg": float(k), "loss": 1.0}})
        print("logged", flush=True)
        time.sleep({pause})
    print("mlflow" in sys.modules)
"""


def job(store, lines=1, pause=0.0, patience=1.0) -> list[str]:
    """The command of a job that streams."""
    return [sys.executable, "-c", textwrap.dedent(JOB.format(store=store, lines=lines, pause=pause, patience=patience))]


@pytest.mark.parametrize("pause", [0.0, 0.7])
def test_a_job_that_ends_before_mlflow_is_there_ends_well_and_leaves_no_process(store, pause):
    ended = subprocess.run(job(store, pause=pause), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "logged\nFalse\n")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") <= 1


def test_a_killed_job_has_its_lines_and_its_status_in_the_store(store, rows):
    started = subprocess.Popen(job(store, lines=3, pause=LONG), stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "logged\n"
    wait_until(lambda: len(rows("metrics")) == 3)  # the process beside it has the run open
    started.send_signal(signal.SIGKILL)
    started.communicate()
    wait_until(lambda: "KILLED" in rows("runs")[0])


def test_sigterm_to_all_processes_of_a_job_leaves_it_to_the_job_to_say_how_it_ended(store, stream, rows):
    with stream(f"sqlite:///{store}", said := []) as live:
        live.log({"kimg": 1.0, "loss": 1.0})
        wait_until(lambda: rows("metrics"))
        live._process.send_signal(signal.SIGTERM)  # as `scancel` does
        live.log({"kimg": 2.0, "loss": 0.5})
        live.close("KILLED")
    assert said == []
    assert len(rows("metrics")) == 2
    assert "KILLED" in rows("runs")[0]


def test_lines_that_come_faster_than_the_store_takes_them_arrive_in_batches(store, rows):
    subprocess.run(job(store, lines=300, patience=LONG), check=True, stdout=subprocess.DEVNULL)
    points = rows("metrics")
    assert len(points) == 300
    assert len({row[2] for row in points}) <= 1 + 300 // 100  # the times at which they were written: one a batch


def test_the_job_itself_imports_no_mlflow():
    code = "import sys, hamflow.tracking; print({'mlflow', 'torch', 'filelock'} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"


def wait_until(condition) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
