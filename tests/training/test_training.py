"""The training loop: exact resuming, accumulation, guards, and that it learns."""

import copy
import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch

from hamflow import cli, config, data, methods
from hamflow.errors import CheckpointError, DivergenceError
from hamflow.files import canonical_json, load_tensors, read_json
from hamflow.methods.velocity import VelocityObjective
from hamflow.tracking import read_jsonl
from hamflow.training import fit
from hamflow.training.folder import STATE
from hamflow.training.plan import MEASURED
from hamflow.verbs._training import code_of, train


def spec_of(tiny_config, dataset="digits", method="oscillation", **training):
    spec = copy.deepcopy(config.training_spec(tiny_config, dataset, method))
    spec["training"] |= training
    return spec


def test_what_was_kept_is_published_again_unless_it_is_damaged(prepared, tiny_config, tmp_path, capsys):
    spec = spec_of(tiny_config, train_kimg=0.5)
    published = train(spec, prepared / "digits", 0, tmp_path, "cpu", keep=True)
    content = published.read_bytes()
    for path in list(tmp_path.glob("*.*")):
        path.unlink()
    capsys.readouterr()
    assert train(spec, prepared / "digits", 0, tmp_path, "cpu", keep=True).read_bytes() == content
    assert "published again" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.*")} == {"model.safetensors", "run.json", "train.jsonl"}

    (kept,) = tmp_path.glob("state/*/model.safetensors")
    kept.write_bytes(content[:-1])
    published.unlink()
    assert train(spec, prepared / "digits", 0, tmp_path, "cpu").read_bytes() == content
    assert "published again" not in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch, stop):
    """Make the loop fail when it begins step `stop`; returns the whole method."""
    step = fit._Fitting.step

    def interrupted(fitting):
        if fitting.state.step == stop:
            raise Interrupted
        step(fitting)

    monkeypatch.setattr(fit._Fitting, "step", interrupted)
    return step


@pytest.mark.parametrize("method", ["edm", "reflection", "pfgm", "oscillation_coloured"])
def test_an_interrupted_run_resumes_to_the_same_bytes(tiny_config, prepared, tmp_path, monkeypatch, method):
    """With dropout, an average, gradient accumulation and a window of losses under way: all must come back."""
    spec = spec_of(tiny_config, method=method, microbatch=24, state_kimg=0.192, report_kimg=0.256)
    whole = train(spec, prepared / "digits", 3, tmp_path / "whole", "cpu")
    for stop in (5, 11):
        step = interrupt_at(monkeypatch, stop)
        with pytest.raises(Interrupted):
            train(spec, prepared / "digits", 3, tmp_path / "broken", "cpu")
        monkeypatch.setattr(fit._Fitting, "step", step)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    broken = train(spec, prepared / "digits", 3, tmp_path / "broken", "cpu")
    assert broken.read_bytes() == whole.read_bytes()
    logs = [read_jsonl(p.parent / "train.jsonl") for p in (whole, broken)]
    timeless = [[record | dict.fromkeys(MEASURED, 0) for record in log] for log in logs]
    assert timeless[0] == timeless[1]
    assert not (tmp_path / "broken" / "state").exists()


def test_the_checkpoint_holds_the_curve_of_the_log_without_speeds(tiny_config, prepared, tmp_path):
    path = train(spec_of(tiny_config), prepared / "digits", 0, tmp_path / "run", "cpu")
    log = read_jsonl(path.parent / "train.jsonl")
    assert log
    assert load_tensors(path)[1]["history"] == [{k: v for k, v in r.items() if k not in MEASURED} for r in log]
    assert {"git_commit", "git_dirty", "host", "wall_seconds", "cpu_seconds"} == read_json(path.parent / "run.json").keys()


KINDS = {"velocity": {"train_kimg": 150}, "hsm": {"train_kimg": 40}, "gan": {"train_kimg": 100}}
KINDS |= {"vae": {"train_kimg": 40}, "lsgm": {"train_kimg": 20}}
VAE = {"kind": "vae", "options": {"channels": 8, "latent": 2}}  # of digits


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind not in ("velocity", "hsm") else kind for kind in KINDS]
)
def test_sigkill_at_ten_random_instants_changes_no_byte(kind, tiny_config, prepared, tmp_path, monkeypatch):
    """`hamflow train`, killed again and again, wherever it happens to be, ends with the weights of an undisturbed run."""
    dataset = "digits" if kind in ("vae", "lsgm") else "checkerboard"
    spec = spec_of(tiny_config, dataset, "oscillation", state_kimg=0.512, report_kimg=0.512, **KINDS[kind])
    parents = []
    if kind == "hsm":
        spec |= {"kind": kind, "options": {}, "network": {"kind": "small", "width": 32, "depth": 2}}
    if kind == "gan":
        spec |= {"kind": kind, "options": {"penalty_every": 3, "latent": 8, "width": 32}}
    if kind == "vae":
        spec |= VAE
    if kind == "lsgm":
        first = spec_of(tiny_config, "digits", "oscillation", train_kimg=0.5) | VAE
        path = train(first, prepared / "digits", 0, tmp_path / "first", "cpu")
        spec |= {"kind": kind, "options": {}, "parents": {"vae": "oscillation"}}
        parents = ["--parent", f"vae={path}"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")

    def start(name):
        words = ["train", "--spec", canonical_json(spec), "--data", str(prepared / dataset), "--device", "cpu", *parents]
        words += ["--output", str(tmp_path / name)]
        process = multiprocessing.get_context("fork").Process(target=cli.main, args=(words,))
        process.start()
        return process

    code_of(spec, dataset)  # read once here, not by each process
    began = time.perf_counter()
    start("whole").join()
    duration = time.perf_counter() - began
    positions = []
    for instant in np.random.default_rng(0).uniform(0.005, 0.12, 10):
        process = start("killed")
        process.join(instant * duration)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed: give it more to do"
        state = next(tmp_path.glob(f"killed/state/*/{STATE}"), None)
        positions.append(load_tensors(state)[1]["progress"]["step"] if state else 0)
    assert positions == sorted(positions)
    assert len(set(positions)) > 5, f"the kills fell at the same place: {positions}"
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    start("killed").join()
    assert (tmp_path / "killed" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_two_runs_are_equal_and_seeds_differ(tiny_config, prepared, tmp_path):
    spec = spec_of(tiny_config, train_kimg=0.256)
    first, again, other = (
        train(spec, prepared / "digits", seed, tmp_path / name, "cpu") for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_config, prepared, tmp_path):
    """Without dropout, splitting a batch changes the sum only by rounding."""
    weights = []
    for microbatch in (64, 20):
        spec = spec_of(tiny_config, train_kimg=0.256, microbatch=microbatch)
        spec["network"]["dropout"] = 0.0
        path = train(spec, prepared / "digits", 0, tmp_path / str(microbatch), "cpu")
        weights.append(load_tensors(path)[0])
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-4)


def test_training_touches_no_global_generator(tiny_config, prepared, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  the global generator is what is tested
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train(spec_of(tiny_config, train_kimg=0.128), prepared / "digits", 0, tmp_path, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_state(tiny_config, prepared, tmp_path, monkeypatch):
    spec = spec_of(tiny_config, train_kimg=1, state_kimg=0.128)
    losses = VelocityObjective.losses
    spoilt = lambda objective, turn, batch: losses(objective, turn, batch) * (float("nan") if batch.step == 5 else 1)  # noqa: E731
    monkeypatch.setattr(VelocityObjective, "losses", spoilt)
    with pytest.raises(
        DivergenceError, match=r"digits/oscillation.* met loss nan .*'velocity' of step 5 [\s\S]*state.safetensors"
    ):
        train(spec, prepared / "digits", 0, tmp_path, "cpu")
    assert not (tmp_path / "model.safetensors").exists()
    assert load_tensors(next(tmp_path.glob(f"state/*/{STATE}")))[1]["progress"]["step"] == 4


def test_a_run_of_another_configuration_does_not_resume_from_this_one(tiny_config, prepared, tmp_path, monkeypatch):
    step = interrupt_at(monkeypatch, 8)
    with pytest.raises(Interrupted):
        train(spec_of(tiny_config), prepared / "digits", 0, tmp_path / "x", "cpu")
    monkeypatch.setattr(fit._Fitting, "step", step)
    other = spec_of(tiny_config, learning_rate=1e-3)
    mixed = train(other, prepared / "digits", 0, tmp_path / "x", "cpu")
    alone = train(other, prepared / "digits", 0, tmp_path / "y", "cpu")
    assert mixed.read_bytes() == alone.read_bytes()
    assert len(list((tmp_path / "x" / "state").iterdir())) == 1  # the first run's state is still there


def test_a_truncated_state_is_refused(tiny_config, prepared, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 8)
    with pytest.raises(Interrupted):
        train(spec_of(tiny_config), prepared / "digits", 0, tmp_path, "cpu")
    state = next(tmp_path.glob(f"state/*/{STATE}"))
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="delete .* to train from the start"):
        train(spec_of(tiny_config), prepared / "digits", 0, tmp_path, "cpu")


def test_the_loss_falls_below_that_of_the_best_linear_velocity(tiny_config, prepared, tmp_path):
    """At alpha = 1/sigma_data the best multiple of x predicts nothing (loss 1): what falls below it has seen the data."""
    spec = spec_of(tiny_config, "checkerboard", "oscillation", train_kimg=40, learning_rate=5e-3)
    path = train(spec, prepared / "checkerboard", 0, tmp_path, "cpu")
    losses = [record["loss"] for record in read_jsonl(path.parent / "train.jsonl")]
    assert np.mean(losses[-5:]) < 0.97


def test_a_class_conditional_model_uses_its_labels(tiny_config, prepared, tmp_path):
    spec = spec_of(tiny_config, train_kimg=2, learning_rate=5e-3) | {"conditional": True}
    model = methods.load(train(spec, prepared / "digits", 0, tmp_path, "cpu"))
    assert model.classes == 10
    x, t = torch.zeros(10, *model.shape), model.flow.horizon / 2
    out = model.velocity(x, t, torch.arange(10))
    assert float(out.std(0).max()) > 0


def test_the_checkpoint_describes_itself(tiny_config, prepared, tmp_path):
    path = train(spec_of(tiny_config, train_kimg=0.128), prepared / "digits", 7, tmp_path, "cpu")
    metadata = methods.load(path).metadata
    dataset = data.load(prepared / "digits")
    assert metadata["data_sha256"] == dataset.sha256
    assert metadata["facts"]["sigma_data"] == dataset.sigma_data
    assert methods.load(path).flow.options == {"alpha": 1 / dataset.sigma_data}
    assert (metadata["seed"], metadata["kimg"]) == (7, 0.128)


def test_a_checkpoint_that_is_truncated_or_altered_is_refused(tiny_config, prepared, tmp_path):
    path = train(spec_of(tiny_config, train_kimg=0.128), prepared / "digits", 0, tmp_path, "cpu")
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="not a complete checkpoint"):
            methods.load(path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        methods.load(tmp_path / "absent.safetensors")
