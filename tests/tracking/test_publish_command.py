"""`hamflow publish` as the command line mounts it."""

import argparse
import subprocess
import sys

import pytest

from hamflow.errors import ConfigurationError
from hamflow.tracking import commands

INIT = """
import argparse, sys
from hamflow.tracking import commands
parser = argparse.ArgumentParser()
commands.add_arguments(parser.add_subparsers())
args = parser.parse_args(sys.argv[1:])
args.run(args)
"""


def run(*words) -> None:
    parser = argparse.ArgumentParser()
    commands.add_arguments(parser.add_subparsers())
    args = parser.parse_args(["publish", *map(str, words)])
    args.run(args)


def test_publish_says_what_it_did(make_preset, tmp_path, store, capsys):
    preset = make_preset(tmp_path, methods=("edm",), seeds=(0,))
    run(*preset.options(), "--uri", f"sqlite:///{store}")
    assert "6 runs created" in capsys.readouterr().out


def test_to_make_a_store_that_is_there_or_a_server_does_nothing(store, capsys):
    before = store.read_bytes()
    run("--init", "--uri", f"sqlite:///{store}")
    run("--init", "--uri", "http://user:secret@127.0.0.1:9")  # where nobody listens
    assert store.read_bytes() == before
    assert "secret" not in capsys.readouterr().out


def test_publish_without_folders_says_what_to_type():
    with pytest.raises(ConfigurationError, match="--checkpoints"):
        run()


def test_processes_that_create_one_store_together_leave_one_whole_store(tmp_path, make_preset):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", INIT, "publish", "--init", "--uri", uri]
    together = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1] for process in together]
    assert [process.returncode for process in together] == [0, 0, 0], errors
    run(*make_preset(tmp_path, methods=("edm",), seeds=(0,)).options(), "--uri", uri)
    assert not list(tmp_path.glob(".mlflow.db*"))
