"""`hamflow publish` as the command line mounts it."""

import subprocess
import sys

import pytest

from hamflow import cli
from hamflow.errors import ConfigurationError


def run(*words) -> None:
    """The verb, in this process; its exceptions come through."""
    options = cli.parser().parse_args(["publish", *map(str, words)])
    options.run(options)


def test_publish_says_what_it_did(make_preset, tmp_path, store, capsys):
    make_preset(tmp_path, methods=("edm",), seeds=(0,))
    run("toy", "--root", tmp_path, "--uri", f"sqlite:///{store}")
    assert "6 runs created" in capsys.readouterr().out


def test_to_make_a_store_that_is_there_or_a_server_does_nothing(store, capsys):
    before = store.read_bytes()
    run("--init", "--uri", f"sqlite:///{store}")
    run("--init", "--uri", "http://user:secret@127.0.0.1:9")  # where nobody listens
    assert store.read_bytes() == before
    assert "secret" not in capsys.readouterr().out


def test_publish_without_a_preset_says_what_to_type():
    with pytest.raises(ConfigurationError, match="hamflow publish quickstart"):
        run()


def test_processes_that_create_one_store_together_leave_one_whole_store(tmp_path, make_preset):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "hamflow.cli", "publish", "--init", "--uri", uri]
    together = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], errors
    make_preset(tmp_path, methods=("edm",), seeds=(0,))
    run("toy", "--root", tmp_path, "--uri", uri)
    assert not list(tmp_path.glob(".mlflow.db*"))
