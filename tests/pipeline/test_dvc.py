"""What DVC promises: the same bytes again, fetched bytes that are taken as they are, and numbers that can be compared."""

import json

import pytest
from workflows import Workflow, copy_tree

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

RESTORE = ("hamflow", "check", "quickstart")  # after `dvc pull`: `make restore`
SLOWER = "methods={edm: {training: {learning_rate: 3.0e-4}}}"


@pytest.mark.slow
def test_a_second_run_elsewhere_gives_the_same_lock(finished, tmp_path):
    other = Workflow(copy_tree(tmp_path, finished.folder))
    other.command("dvc", "repro")
    assert (other.folder / "dvc.lock").read_text() == (finished.folder / "dvc.lock").read_text()


def test_after_a_pull_nothing_is_to_do(pulled):
    assert pulled.pending() == set()
    assert "up to date" in pulled.command("dvc", "status").stdout


def test_after_restoring_a_changed_rate_repeats_that_method_alone(pulled):
    pulled.command(*RESTORE)
    assert pulled.pending() == set()
    jobs = pulled.pending("--config", SLOWER)
    trained = {job.wildcards for job in jobs if job.rule in ("train", "sample", "evaluate")}
    assert trained == {"dataset=checkerboard, method=edm, seed=0"}


@pytest.mark.slow
def test_an_experiment_with_a_changed_parameter_runs_its_jobs_alone(pulled):
    pulled.command(*RESTORE)
    before = {path: path.read_bytes() for path in (pulled.folder / "checkpoints").rglob("model.safetensors")}
    pulled.command("dvc", "exp", "run", "--name", "slower", "--set-param", "+methods.edm.training.learning_rate=0.0003")
    changed = {path.parts[-3] for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"edm"}
    difference = json.loads(pulled.command("dvc", "metrics", "diff", "--json").stdout)
    moved = {name.split(".")[1] for entry in difference.values() for name in entry}
    assert moved == {"edm"}


def test_metrics_and_plots_have_something_to_show(finished):
    shown = json.loads(finished.command("dvc", "metrics", "show", "--json").stdout)
    (file,) = shown[""]["data"].values() if "" in shown else [entry for r in shown.values() for entry in r["data"].values()]
    assert file["data"]["checkerboard"]["edm"]["w2"]["heun-nfe3"] > 0
