"""A real MLflow server, on SQLite and on PostgreSQL: live stream, publishing twice, the registry, and its pages."""

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import mlflow
import pytest

from hamflow.tracking import RunStream, publish, read_jsonl
from hamflow.tracking.store import connect, experiment_id, find_runs

pytestmark = pytest.mark.xdist_group("mlflow-server")  # one worker starts each server once

LONG = 120.0  # seconds for a server to start on a busy machine
ALONE = "nobody"  # PostgreSQL refuses to be run by root


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_until(condition, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list[str], log: Path, how_to_end: signal.Signals, **options):
    """A process in a session of its own, which ends with the block."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        yield process
    finally:
        os.killpg(process.pid, how_to_end)
        process.wait(30)


def programs_of_postgresql() -> Path | None:
    """The folder of initdb and postgres: Debian keeps them out of the PATH."""
    for initdb in (*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")):
        if initdb and Path(initdb).with_name("postgres").exists():
            return Path(initdb).parent
    return None


@contextmanager
def postgresql():
    """A fresh cluster on loopback; yields its address for SQLAlchemy."""
    programs = programs_of_postgresql()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2 is not installed (pip install psycopg2-binary)")
    user = {"user": ALONE, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="hamflow-postgresql-") as folder:  # not tmp_path, which is root's alone
        if user:
            shutil.chown(folder, ALONE)
        data, log, port = f"{folder}/data", Path(folder, "log"), free_port()
        init = [f"{programs}/initdb", "-D", data, "-U", "hamflow", "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run(init, check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)
        command = [f"{programs}/postgres", "-D", data, "-p", str(port), "-k", folder]
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with running(command + settings, log, signal.SIGINT, cwd=folder, **user) as process:
            wait_until(lambda: "ready to accept connections" in log.read_text(), process, log)
            yield f"postgresql://hamflow@127.0.0.1:{port}/postgres"


@contextmanager
def sqlite(folder: Path):
    yield f"sqlite:///{folder}/mlflow.db"


@contextmanager
def server(folder: Path, backend: str):
    """`mlflow server` on loopback that keeps the artefacts, as one for a group would; yields its address."""
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", backend, "--artifacts-destination", str(folder / "artifacts")]
    lean = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no scheduler beside it, for other things than runs
    with running(command + places, log, signal.SIGKILL, cwd=folder, env=lean) as process:
        wait_until(lambda: listens(port) and healthy(port), process, log)
        yield f"http://127.0.0.1:{port}"


def healthy(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def backend(request, tmp_path_factory):
    """The database of the server."""
    with ExitStack() as stack:
        opened = postgresql() if request.param == "postgresql" else sqlite(tmp_path_factory.mktemp("database"))
        yield stack.enter_context(opened)


@pytest.fixture(scope="module")
def published(backend, tmp_path_factory, make_preset, spec):
    """(address of a server, preset): one run was streamed in part, then all was published."""
    folder = tmp_path_factory.mktemp("server")
    preset = make_preset(folder, methods=("edm",))
    with server(folder, backend) as uri:
        run = {"preset": "toy", "dataset": "digits", "method": "edm", "seed": 0, "spec": spec("edm")}
        said: list[str] = []
        with RunStream.of_training(**run, uri=uri, experiment="test", say=said.append, patience=LONG) as live:
            for record in read_jsonl(preset.checkpoints / "digits/edm/seed0/train.jsonl")[:3]:
                live.log(record)
        assert said == []
        summary = publish(preset, uri, "test")
        assert (summary.created, summary.completed) == (6, 1)
        yield uri, preset


def contents(uri: str) -> dict[str, object]:
    """All that the server tells of the runs, their artefacts and the registered models."""
    client = connect(uri)
    told: dict[str, object] = {}
    for run in find_runs(client, experiment_id(client, uri, "test")).values():
        name, identity = run.info.run_name, run.info.run_id
        told[name] = run.to_dictionary()
        told[f"{name} points"] = sorted(
            str(dict(point)) for metric in run.data.metrics for point in client.get_metric_history(identity, metric)
        )
        told[f"{name} files"] = sorted(
            file.path for folder in client.list_artifacts(identity) for file in client.list_artifacts(identity, folder.path)
        )
    told["versions"] = sorted(str(dict(version)) for version in client.search_model_versions())
    return told


def test_the_server_has_the_runs_nested_with_their_data_and_curves(published):
    uri, preset = published
    told = contents(uri)
    names = {told[name]["info"]["run_id"]: name for name in told if isinstance(told[name], dict)}
    above = {name: names.get(told[name]["data"]["tags"].get("mlflow.parentRunId")) for name in names.values()}
    assert above == {
        "toy": None,
        "digits": "toy",
        "data": "digits",
        "edm": "digits",
        "digits/data/seed0": "data",
        "digits/edm/seed0": "edm",
        "digits/edm/seed1": "edm",
    }
    lines = read_jsonl(preset.checkpoints / "digits/edm/seed0/train.jsonl")
    assert sum("train/loss" in point for point in told["digits/edm/seed0 points"]) == len(lines)
    assert told["digits/edm/seed0"]["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "digits"
    assert told["toy files"] == ["figures/nfe.png", "studies/mixture.json", "tables/table1.csv"]


def test_publishing_twice_changes_nothing_on_the_server(published):
    uri, preset = published
    before = contents(uri)
    summary = publish(preset, uri, "test")
    assert (summary.created, summary.completed, summary.unchanged) == (0, 0, 7)
    assert contents(uri) == before


def test_a_registered_checkpoint_comes_back_from_the_server(published, monkeypatch, tmp_path):
    uri, preset = published
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    versions = connect(uri).search_model_versions("name = 'hamflow-toy-digits-edm'")
    assert len(versions) == 2
    for version in versions:
        folder = mlflow.artifacts.download_artifacts(
            f"models:/{version.name}/{version.version}", dst_path=str(tmp_path / str(version.version))
        )
        sent = preset.checkpoints / f"digits/edm/seed{version.tags['hamflow.seed']}/model.safetensors"
        assert Path(folder, "model.safetensors").read_bytes() == sent.read_bytes()


def test_the_runs_lie_in_the_database(published, backend):
    import sqlalchemy

    with sqlalchemy.create_engine(backend).connect() as connection:
        (count,) = connection.execute(sqlalchemy.text("SELECT count(*) FROM runs")).one()
    assert count == 7


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)  # the pages ask the server alone
def test_the_pages_show_the_runs(published, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    uri, _ = published
    client = connect(uri)
    experiment = experiment_id(client, uri, "test")
    run = next(run for run in find_runs(client, experiment).values() if run.info.run_name == "digits/edm/seed0")

    def page(address: str) -> str:
        """The text of a page after its scripts ran."""
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=30000"]
        command = [chromium, *options, f"--user-data-dir={tmp_path}", "--dump-dom", f"{uri}/#/{address}"]
        return re.sub(r"<[^>]*>", " ", subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout)

    assert re.search(r"\btoy\b", page(f"experiments/{experiment}/runs"))  # those below it show when it is opened
    text = page(f"experiments/{experiment}/runs/{run.info.run_id}")
    for expected in ("digits/edm/seed0", "fd_enlite0/heun", "train/loss", "flow.alpha", "hamflow-toy-digits-edm", "Finished"):
        assert expected in text
