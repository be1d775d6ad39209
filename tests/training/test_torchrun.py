"""Several processes, started by torchrun, train as one does; a training goes on with another number of them."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from hamflow import config
from hamflow.files import load_tensors
from hamflow.tracking import read_jsonl


@pytest.fixture
def spec(tiny_config):
    spec = config.training_spec(tiny_config, "checkerboard", "edm")
    spec["options"] |= {"strata": 8}  # times by all rows' losses
    spec["training"] |= {"train_kimg": 12.8, "batch": 257, "report_kimg": 0.257, "state_kimg": 0.257}
    return spec


def command(spec, data, output, processes, *more):
    """`hamflow train`, by itself or under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    words = ["train", "--spec", json.dumps(spec), "--data", str(data), "--output", str(output), "--device", "cpu", *more]
    return [sys.executable, *torchrun, "-m", "hamflow.cli", *words]


def run(*arguments):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_same(folder, other):
    tensors, expected = (load_tensors(place / "model.safetensors")[0] for place in (folder, other))
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=1e-6)
    losses, expected = ([record["loss"] for record in read_jsonl(place / "train.jsonl")] for place in (folder, other))
    assert losses == pytest.approx(expected, abs=1e-6)


def test_two_processes_are_as_one_and_one_goes_on_from_two(spec, prepared, tmp_path):
    data = prepared / "checkerboard"
    run(spec, data, tmp_path / "one", 1)
    said = run(spec, data, tmp_path / "two", 2)
    assert said.count("shared by 2 processes") == 1
    assert_same(tmp_path / "two", tmp_path / "one")

    stopped = tmp_path / "stopped"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command(spec, data, stopped, 2), stdout=log, stderr=log)
        while not list(stopped.glob("state/*/state.safetensors")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) != 0
    assert "state saved at" in (tmp_path / "log").read_text()
    assert not (stopped / "model.safetensors").exists()
    assert "resumed at" in run(spec, data, stopped, 1)
    assert_same(stopped, tmp_path / "one")


@pytest.mark.slow
def test_two_processes_share_the_groups_and_the_signs_of_a_gan(tiny_config, prepared, tmp_path):
    """Its discriminator looks at groups of samples, and its probability of augmentation moves by the signs of all rows."""
    spec = config.training_spec(tiny_config, "digits", "stylegan2_ada")
    spec["options"] |= {"group": 4, "ada_every": 2, "ada_kimg": 0.2, "target": -0.9, "penalty_every": 3}
    spec["training"] |= {"train_kimg": 0.128, "batch": 16, "report_kimg": 0.016, "learning_rate": 1e-4, "players": {}}
    for processes in (1, 2):
        run(spec, prepared / "digits", tmp_path / str(processes), processes, "--seed", "1")  # whose first signs are not all -1
    tensors, expected = (load_tensors(tmp_path / name / "model.safetensors")[0] for name in "21")
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=2e-4)  # two steps of Adam: small gradients have no sign
    records, expected = (read_jsonl(tmp_path / name / "train.jsonl") for name in "21")
    assert any(record["p"] > 0 for record in expected)
    for key in ("sign", "p", "discriminator_loss", "loss"):
        assert [record[key] for record in records] == pytest.approx([record[key] for record in expected], abs=1e-4)


@pytest.mark.slow
def test_two_processes_train_an_autoencoder_and_its_prior_as_one_does(tiny_config, prepared, tmp_path):
    """The losses of every step are the same up to rounding; Adam divides by gradients, so weights whose gradient is nearly
    zero are not."""
    spec = config.training_spec(tiny_config, "digits", "edm")
    spec["training"] |= {"train_kimg": 0.256, "batch": 64, "report_kimg": 0.064}
    first = spec | {"kind": "vae", "options": {"channels": 8, "latent": 2}}
    joint = spec | {"kind": "lsgm", "options": {}, "parents": {"vae": "edm"}}
    run(first, prepared / "digits", tmp_path / "vae1", 1)
    for kind, chosen, more in (
        ("vae", first, []),
        ("lsgm", joint, ["--parent", f"vae={tmp_path / 'vae1' / 'model.safetensors'}"]),
    ):
        curves = []
        for processes in (1, 2):
            folder = tmp_path / f"{kind}{processes}"
            if not folder.exists():
                run(chosen, prepared / "digits", folder, processes, *more)
            curves.append([record["loss"] for record in read_jsonl(folder / "train.jsonl")])
        assert len(curves[0]) == 4
        assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_a_batch_that_has_no_row_for_a_process_is_refused(spec, prepared, tmp_path):
    spec["training"]["batch"] = 1
    done = subprocess.run(command(spec, prepared / "checkerboard", tmp_path, 2), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "`training.batch` = 1 cannot be shared by 2 processes" in done.stderr


@pytest.mark.slow
def test_where_the_first_process_has_nothing_to_train_all_end(spec, prepared, tmp_path):
    """It publishes again what was kept."""
    words = [*command(spec, prepared / "checkerboard", tmp_path, 2), "--keep"]
    for said in ("from the start", "is published again"):
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
