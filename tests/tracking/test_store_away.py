"""A store that is away, locked or slow: no job fails or waits for it, and `hamflow publish` says so soon."""

import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hamflow.tracking import RunStream, publish
from hamflow.tracking.store import TrackingError, first_line, shown, why_away
from hamflow.tracking.stream import SECONDS_TO_CLOSE

SLACK = 1.0  # seconds of a busy machine
LINES = 5000


@contextmanager
def refused():
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def slow():
    """A server that is healthy, and takes long for everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/health":
                stop.wait(30)
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_arguments):
            pass

    stop = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stop.set()
        server.shutdown()
        server.server_close()


@contextmanager
def broken():
    """A server that answers every call with an error."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def locked(store):
    """An SQLite store that another process writes to."""

    @contextmanager
    def hold():
        holder = sqlite3.connect(store)
        holder.execute("BEGIN EXCLUSIVE")
        yield f"sqlite:///{store}"
        holder.close()

    return hold


@pytest.fixture(params=["refused", "silent", "slow", "broken", "locked"])
def away(request, locked):
    """A store that is of no use; a function without arguments that opens it."""
    return locked if request.param == "locked" else globals()[request.param]


def test_neither_start_nor_lines_nor_end_of_a_job_wait_for_it(away):
    said = []
    with away() as uri:
        began = time.monotonic()
        live = RunStream("key", uri, "test", {}, {}, say=said.append)
        assert time.monotonic() - began < SLACK
        for k in range(LINES):  # more than a pipe holds
            live.log({"kimg": float(k), "loss": 1.0})
        began = time.monotonic()
        live.close()
        assert time.monotonic() - began < SECONDS_TO_CLOSE + SLACK
    assert len(said) == 1
    assert "hamflow publish" in said[0]


def test_a_process_that_streams_to_it_ends_at_once_and_with_zero(away):
    code = """
        import sys, time
        from hamflow.tracking import RunStream
        live = RunStream("key", {uri!r}, "test", {{}}, {{}})
        live.log({{"kimg": 1.0, "loss": 1.0}})
        live.close()
        print(time.monotonic(), flush=True)
    """
    with away() as uri:
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code.format(uri=uri))], capture_output=True, text=True, check=False
        )
        assert time.monotonic() - float(ended.stdout) < 2 * SLACK  # the clock is the machine's, not the process's
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_given_time_the_reason_is_said(away, request):
    said = []
    with away() as uri:
        live = RunStream("key", uri, "test", {}, {}, say=said.append, patience=60.0 if "slow" not in request.node.name else 0.5)
        live.log({"kimg": 1.0, "loss": 1.0})
        live.close()
    expected = {"refused": "refused", "silent": "timed out", "slow": "in time", "broken": "404", "locked": "locked"}
    assert len(said) == 1
    assert next(text for name, text in expected.items() if name in request.node.name) in said[0]


@pytest.mark.parametrize("kind", [refused, silent, broken, "locked"])
def test_publishing_to_it_fails_soon_and_says_why(kind, locked, make_preset, tmp_path):
    preset = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    began = time.monotonic()
    with (locked if kind == "locked" else kind)() as uri, pytest.raises(TrackingError) as caught:
        publish(preset, uri, "test")
    assert time.monotonic() - began < 20
    assert "nothing is lost" in str(caught.value)


def test_a_store_that_answers_is_not_away(store):
    assert why_away(f"sqlite:///{store}") == ""
    with slow() as uri:
        assert why_away(uri) == ""


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"])
def test_a_database_that_is_away_is_found_so_without_its_driver(scheme):
    with refused() as uri:
        reason = why_away(uri.replace("http://", f"{scheme}://user:secret@") + "/mlflow")
    assert "does not answer" in reason
    assert "secret" not in reason


def test_a_password_is_not_shown():
    assert shown("https://user:secret@host/mlflow") == "https://user:***@host/mlflow"
    assert shown("https://user:se@cr/et@host/mlflow") == "https://user:***@host/mlflow"
    for plain in ("sqlite:///mlflow.db", "http://host:5000", "http://[::1"):
        assert shown(plain) == plain


def test_what_an_exception_quotes_of_an_address_has_no_password():
    quoted = RuntimeError("GET http://user:secret@host:5000/api failed; see http://host:80/x, or ask me@host\nmore")
    assert first_line(quoted) == "GET http://user:***@host:5000/api failed; see http://host:80/x, or ask me@host"


def test_the_line_of_a_job_that_quotes_an_address_has_no_password():
    said = []
    with silent() as uri:
        uri = uri.replace("http://", "other://user:secret@")
        with RunStream("key", uri, "test", {}, {}, say=said.append, patience=60.0) as live:
            live.log({"kimg": 1.0, "loss": 1.0})
    assert len(said) == 1
    assert "other://user:***@" in said[0]


@pytest.mark.parametrize("uri", ["http://[::1", "http://host:port", "postgresql://user:secret/1@host/mlflow"])
def test_an_address_that_cannot_be_read_is_a_reason(uri):
    assert "is no address" in why_away(uri)
    assert "secret" not in why_away(uri)
