"""SIGTERM: the state is saved, and the run goes on to the same bits."""

import copy
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from hamflow import config
from hamflow.files import canonical_json, load_tensors
from hamflow.tracking import JsonlLog
from hamflow.training import fit
from hamflow.training.folder import STATE
from hamflow.training.interruption import Interrupted, Termination
from hamflow.verbs._training import train


@pytest.fixture
def spec(tiny_config):
    """Of a run whose only saved state is the one that SIGTERM asks for."""
    spec = copy.deepcopy(config.training_spec(tiny_config, "checkerboard", "oscillation"))
    spec["training"] |= {"train_kimg": 8, "report_kimg": 1.28, "state_kimg": 8}
    return spec


def terminate_in(monkeypatch, steps):
    """Send SIGTERM to this process within the given steps."""
    step = fit._Fitting.step

    def interrupted(fitting):
        if fitting.state.step in steps:
            os.kill(os.getpid(), signal.SIGTERM)
        step(fitting)

    monkeypatch.setattr(fit._Fitting, "step", interrupted)
    return step


def saved_step(output):
    return load_tensors(next(output.glob(f"state/*/{STATE}")))[1]["progress"]["step"]


def test_the_step_under_way_is_finished_and_saved_and_a_later_call_ends_with_the_same_bytes(
    spec, prepared, tmp_path, monkeypatch
):
    whole = train(spec, prepared / "checkerboard", 0, tmp_path / "whole", "cpu")
    whole_step = terminate_in(monkeypatch, {3, 11})
    for step in (4, 12):
        with pytest.raises(Interrupted, match=f"state saved at {step * 0.256:g} kimg; run the same command again"):
            train(spec, prepared / "checkerboard", 0, tmp_path / "broken", "cpu")
        assert saved_step(tmp_path / "broken") == step
    assert not (tmp_path / "broken/model.safetensors").exists()
    monkeypatch.setattr(fit._Fitting, "step", whole_step)
    broken = train(spec, prepared / "checkerboard", 0, tmp_path / "broken", "cpu")
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken/state").exists()


def test_a_signal_before_the_first_step_saves_a_state_that_resumes(spec, prepared, tmp_path, monkeypatch):
    restart = JsonlLog.restart
    monkeypatch.setattr(JsonlLog, "restart", lambda log, records: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="saved at 0 kimg"):
        train(spec, prepared / "checkerboard", 0, tmp_path / "early", "cpu")
    monkeypatch.setattr(JsonlLog, "restart", restart)
    early = train(spec, prepared / "checkerboard", 0, tmp_path / "early", "cpu")
    assert early.read_bytes() == train(spec, prepared / "checkerboard", 0, tmp_path / "whole", "cpu").read_bytes()


def test_a_signal_in_the_last_step_lets_the_run_publish(spec, prepared, tmp_path, monkeypatch):
    steps = 32  # of 8 kimg
    terminate_in(monkeypatch, {steps - 1})
    assert train(spec, prepared / "checkerboard", 0, tmp_path, "cpu").exists()


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None], ids=["default", "ignored", "handler"])
def test_the_handler_that_was_there_comes_back(before):
    original = signal.signal(signal.SIGTERM, before)
    try:
        with suppress(ZeroDivisionError), Termination() as termination:
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError
        assert termination.requested
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, original)


def test_a_thread_trains_without_handlers(spec, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was installed"))
    thread = threading.Thread(target=train, args=(spec, prepared / "checkerboard", 0, tmp_path, "cpu"))
    thread.start()
    thread.join()
    assert (tmp_path / "model.safetensors").exists()


def test_the_command_ends_with_75_and_one_line_and_repeated_ends_with_the_same_bytes(spec, prepared, tmp_path):
    """`kill -TERM` of a real process while it trains."""
    spec["training"] |= {"train_kimg": 100, "report_kimg": 2, "state_kimg": 100}
    output = tmp_path / "preset/checkerboard/oscillation/seed0"
    command = [sys.executable, "-m", "hamflow.cli", "train", "--spec", canonical_json(spec)]
    command += ["--data", str(prepared / "checkerboard"), "--output", str(output), "--device", "cpu"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": ""}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while "loss" not in process.stdout.readline():  # until its first report
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate()
    assert process.returncode == 75, errors
    (line,) = [line for line in errors.splitlines() if "MLflow" not in line]
    (kimg,) = re.fullmatch(r"train checkerboard/oscillation/seed0: state saved at (\S+) kimg; run the same .*", line).groups()
    assert 2 <= float(kimg) < 100

    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    assert f"resumed at {kimg} kimg" in done.stdout
    whole = train(spec, prepared / "checkerboard", 0, tmp_path / "whole", "cpu")
    assert (output / "model.safetensors").read_bytes() == whole.read_bytes()
