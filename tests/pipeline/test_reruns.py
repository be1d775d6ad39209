"""What a change repeats, and what it leaves alone."""

import os
import shutil

import pytest
import yaml
from PIL import Image
from workflows import ROOT, Workflow, copy_tree

from hamflow import config
from hamflow.pipeline.jobs import Jobs

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

# What follows a new set of samples; the report is drawn from the table, the metrics and the samples.
AFTER_SAMPLING = {"sample", "evaluate", "tabulate", "plot"}


def methods_of(jobs, rule):
    return {part for job in jobs if job.rule == rule for part in job.wildcards.split(", ") if part.startswith("method=")}


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.pending() == set()


@pytest.mark.parametrize("folder", ["src", "data", "checkpoints", "results"])
def test_times_of_change_repeat_nothing(finished, folder):
    for path in (finished.folder / folder).rglob("*.*"):
        os.utime(path)
    assert finished.pending() == set()


def test_a_learning_rate_of_one_method_repeats_that_method_alone(finished):
    jobs = finished.pending("--config", "methods={edm: {training: {learning_rate: 3.0e-4}}}")
    assert {rule: methods_of(jobs, rule) for rule in ("train", "sample", "evaluate")} == {
        rule: {"method=edm"} for rule in ("train", "sample", "evaluate")
    }
    assert "prepare" not in {job.rule for job in jobs}


def test_a_list_of_nfe_retrains_nothing(finished):
    assert finished.pending_rules("--config", "sampling={settings: {heun: [3, 5]}}") >= AFTER_SAMPLING
    assert "train" not in finished.pending_rules("--config", "sampling={settings: {heun: [3, 5]}}")


def test_another_seed_runs_that_seed_alone(finished):
    jobs = finished.pending("--config", "seeds=[0, 1]")
    trained = {job.wildcards for job in jobs if job.rule == "train"}
    assert trained == {f"dataset=checkerboard, method={method}, seed=1" for method in ("edm", "reflection")}


def test_editing_the_sampler_repeats_sampling_and_what_follows(finished):
    with finished.edited("src/hamflow/sampling/solvers.py", "annotations\n", "annotations\nEDITED = True\n"):
        rules = finished.pending_rules()
    assert rules >= AFTER_SAMPLING
    assert not rules & {"prepare", "train"}


def test_a_comment_a_docstring_and_another_layout_repeat_nothing(finished):
    with (
        finished.edited("src/hamflow/sampling/solvers.py", '"""', '"""Edited. '),
        finished.edited("src/hamflow/flows/reflection.py", "\n\n", "\n\n\n# a comment\n"),
    ):
        assert finished.pending() == set()


def test_editing_one_flow_repeats_the_methods_that_use_it(finished):
    with finished.edited("src/hamflow/flows/reflection.py", "\n\n", "\n\nEDITED = True\n"):
        jobs = finished.pending()
    assert methods_of(jobs, "train") == {"method=reflection"}


def test_editing_a_metric_repeats_the_evaluation_and_what_follows(finished):
    with finished.edited("src/hamflow/metrics/suite.py", "\n\n", "\n\nEDITED = True\n"):
        rules = finished.pending_rules()
    assert rules >= {"reference_points", "evaluate", "tabulate"}
    assert not rules & {"prepare", "train", "sample"}


def test_jobs_run_the_code_of_their_own_folder_wherever_hamflow_is_installed(fresh):
    with fresh.edited("src/hamflow/data/rings.py", '"""', 'raise RuntimeError("this very file")\n"""'):
        said = fresh.snakemake("--cores", "1", "data/rings/dataset.json", check=False)
    assert said.returncode == 1
    assert "this very file" in said.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--directory", "--snakefile"])
def test_its_own_code_runs_wherever_the_workflow_is_started_from(fresh, tmp_path, how):
    words = ("--directory", str(tmp_path)) if how == "--directory" else ("--snakefile", str(fresh.folder / "Snakefile"))
    elsewhere = fresh if how == "--directory" else Workflow(tmp_path)
    with fresh.edited("src/hamflow/data/rings.py", '"""', 'raise RuntimeError("this very file")\n"""'):
        said = elsewhere.snakemake(*words, "--cores", "1", "--", "data/rings/dataset.json", check=False)
    assert said.returncode == 1
    assert "this very file" in said.stdout
    elsewhere.snakemake(*words, "--cores", "1", "--", "data/rings/dataset.json")
    assert (tmp_path / "data/rings/dataset.json").exists()
    with fresh.edited("src/hamflow/data/rings.py", "\n\n", "\n\nEDITED = True\n"):
        assert {job.rule for job in elsewhere.pending(*words, "--", "data/rings/dataset.json")} == {"prepare"}


def test_a_path_that_would_run_other_code_is_refused(fresh, tmp_path):
    said = Workflow(copy_tree(tmp_path / "a:b", fresh.folder)).snakemake("--dry-run", check=False)
    assert said.returncode == 1
    assert "rename the folder" in said.stdout


@pytest.fixture
def photos(fresh, tmp_path):
    """(a folder of four images, the words by which Snakemake prepares them)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "green", "black", "white"):
        Image.new("RGB", (4, 4), colour).save(folder / f"{colour}.png")
    shutil.rmtree(fresh.folder / "data/photos", ignore_errors=True)
    return folder, overlay_of(folder, tmp_path / "overlay.yaml")


def overlay_of(folder, file, **options):
    entry = {"source": "images", "options": {"path": str(folder), "resolution": 4, **options}}
    parameters = config.load(["params.yaml"])["datasets"]["digits"] | entry
    file.write_text(yaml.safe_dump({"run": {"datasets": ["photos"]}, "datasets": {"photos": parameters}}))
    return ("--configfile", str(file), "--cores", "1", "data/photos/dataset.json")


def test_other_images_of_the_user_are_prepared_again(fresh, photos):
    folder, words = photos
    fresh.snakemake(*words)
    assert fresh.pending(*words) == set()
    Image.new("RGB", (4, 4), "blue").save(folder / "blue.png")
    assert {job.rule for job in fresh.pending(*words)} == {"prepare"}


@pytest.mark.slow
def test_what_was_prepared_stays_usable_when_the_originals_go(fresh, photos, tmp_path):
    folder, words = photos
    fresh.snakemake(*words)
    before = {path.name: path.read_bytes() for path in (fresh.folder / "data/photos").iterdir()}
    shutil.rmtree(folder)
    assert fresh.pending(*words) == set()
    with fresh.edited("src/hamflow/data/pixels.py", "\n\n", "\n\nEDITED = True\n"):  # as after a `git pull`
        assert fresh.pending(*words) == set()
        fresh.snakemake(*words)
    refused = fresh.snakemake(*overlay_of(folder, tmp_path / "larger.yaml", resolution=8), check=False)
    assert refused.returncode == 2
    assert f"{folder} is not there" in refused.stdout
    assert {path.name: path.read_bytes() for path in (fresh.folder / "data/photos").iterdir()} == before


@pytest.mark.parametrize("how", ["empty", "renamed", "full"])
def test_an_empty_folder_is_as_gone_as_none(photos, tmp_path, monkeypatch, how):
    """As where a disk is not mounted."""
    folder, words = photos
    monkeypatch.chdir(tmp_path)
    job = Jobs(config.load([ROOT / "params.yaml", words[1]])).prepare("photos")
    if how == "renamed":
        folder.rename(tmp_path / "elsewhere")
    if how == "empty":
        shutil.rmtree(folder)
        (folder / "inner").mkdir(parents=True)
    assert job.gone == (how != "full")


@pytest.mark.slow
def test_a_preparation_that_fails_leaves_what_was_prepared(fresh, photos):
    folder, words = photos
    fresh.snakemake(*words)
    before = {path.name: path.read_bytes() for path in (fresh.folder / "data/photos").iterdir()}
    (folder / "black.png").write_bytes(b"no image")
    assert fresh.snakemake(*words, check=False).returncode == 1
    assert {path.name: path.read_bytes() for path in (fresh.folder / "data/photos").iterdir()} == before
    assert {job.rule for job in fresh.pending(*words)} == {"prepare"}


def test_a_new_flow_and_method_repeat_no_other(finished):
    text = (finished.folder / "src/hamflow/flows/diffusion.py").read_text()
    assert '"diffusion"' in text
    new = finished.folder / "src/hamflow/flows/ballistic.py"
    new.write_text(text.replace('"diffusion"', '"ballistic"'))
    try:
        assert finished.pending() == set()
    finally:
        new.unlink()


def test_the_store_and_experiment_of_mlflow_repeat_nothing(finished):
    assert finished.pending_rules("--config", "tracking={experiment: another}") == set()


def test_another_preset_lies_beside(finished):
    jobs = finished.pending("--config", "preset=beside")
    assert {job.rule for job in jobs} >= {"train", "sample", "evaluate"}
    assert "prepare" not in {job.rule for job in jobs}, "data sets are shared"
    assert finished.pending() == set()
