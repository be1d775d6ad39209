"""Publishing: complete, and twice the same as once."""

import json
import shutil
import sqlite3
from pathlib import Path

import mlflow
import pytest
import torch

from hamflow.errors import CheckpointError, DataError
from hamflow.files import load_metadata, read_json, save_tensors, sha256_of, write_json
from hamflow.pipeline.paths import Preset
from hamflow.tracking import publish, read_jsonl, run_key
from hamflow.tracking.store import TrackingError, connect, experiment_id, find_run, find_runs

PARENT = "mlflow.parentRunId"


@pytest.fixture
def preset(make_preset, tmp_path):
    return make_preset(tmp_path)


def uri(store) -> str:
    return f"sqlite:///{store}"


def publish_to(store, preset):
    return publish(preset, uri(store), "test")


def runs_of(store) -> dict[str, object]:
    """Every published run by its name."""
    client = connect(uri(store))
    runs = find_runs(client, experiment_id(client, uri(store), "test")).values()
    return {run.info.run_name: run for run in runs}


def history(client, run, name) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))


def retrain(preset, place: str) -> Path:
    """Replace a checkpoint by one of other weights."""
    model = preset.checkpoints / place / "model.safetensors"
    save_tensors(model, {"weight": torch.full((3,), -1.0)}, load_metadata(model))
    return model


def test_a_run_holds_the_curve_the_metrics_the_parameters_and_the_provenance(preset, store, spec):
    publish_to(store, preset)
    client = connect(uri(store))
    key = run_key("toy", "digits", "edm", 1, spec("edm"))
    run = find_run(client, experiment_id(client, uri(store), "test"), key)

    lines = read_jsonl(preset.checkpoints / "digits/edm/seed1/train.jsonl")
    for name in ("loss", "learning_rate", "images_per_second"):
        assert history(client, run, f"train/{name}") == [(1000 * line["kimg"], line[name]) for line in lines]
    files = preset.run("digits", "edm", 1).metrics.glob("heun-*.json")
    finals = sorted((r["nfe"], r["metrics"]["fd_enlite0"]["value"]) for r in map(read_json, files))
    assert history(client, run, "fd_enlite0/heun") == finals
    assert run.data.params == {
        "dataset": "digits",
        "conditional": "false",
        "flow.name": "oscillation",
        "flow.alpha": "auto",
        "batch": "128",
        "method": "edm",
    }
    assert run.data.tags["hamflow.seed"] == "1"
    assert run.data.tags["mlflow.source.git.commit"] == "0" * 40
    assert run.data.tags["hamflow.wall_seconds"] == "12.5"
    assert run.info.status == "FINISHED"


def test_runs_stand_below_their_method_their_data_set_and_their_preset(preset, store):
    summary = publish_to(store, preset)
    runs = runs_of(store)
    names = {run.info.run_id: name for name, run in runs.items()}
    above = {name: names.get(run.data.tags.get(PARENT)) for name, run in runs.items()}
    assert above == {
        "toy": None,
        "digits": "toy",
        "data": "digits",
        "edm": "digits",
        "oscillation": "digits",
        "digits/data/seed0": "data",
        "digits/edm/seed0": "edm",
        "digits/edm/seed1": "edm",
        "digits/oscillation/seed0": "oscillation",
        "digits/oscillation/seed1": "oscillation",
    }
    assert summary.created == len(runs)


def test_the_preset_has_the_table_the_figures_and_the_experiments(preset, store):
    publish_to(store, preset)
    client, run = connect(uri(store)), runs_of(store)["toy"]
    paths = [
        file.path for folder in ("tables", "figures", "studies") for file in client.list_artifacts(run.info.run_id, folder)
    ]
    assert paths == ["tables/table1.csv", "figures/nfe.png", "studies/mixture.json"]


def test_a_run_names_its_data_set_by_digest_schema_and_profile(preset, store):
    publish_to(store, preset)
    runs = runs_of(store)
    sha256 = sha256_of(preset.manifest("digits"))
    for name, context in (("digits/edm/seed0", "training"), ("digits/data/seed0", "evaluation")):
        (one,) = runs[name].inputs.dataset_inputs
        assert {tag.key: tag.value for tag in one.tags} == {"mlflow.data.context": context}
        assert (one.dataset.name, one.dataset.digest) == ("digits", sha256[:36])
        assert json.loads(one.dataset.profile)["sha256"] == sha256
        source = mlflow.data.get_source(one)  # what MLflow itself understands of it
        assert source.to_dict() == {"uri": "data/digits"}
        (tensor,) = json.loads(json.loads(one.dataset.schema)["mlflow_tensorspec"]["features"])
        assert tensor["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 8, 8, 1]}


def test_data_that_are_not_those_of_the_run_do_not_describe_it(preset, store):
    sha256 = sha256_of(preset.manifest("digits"))
    write_json(preset.manifest("digits"), read_json(preset.manifest("digits")) | {"count": 7})
    publish_to(store, preset)
    (one,) = runs_of(store)["digits/edm/seed0"].inputs.dataset_inputs
    assert (one.dataset.digest, one.dataset.profile) == (sha256[:36], None)


def test_each_checkpoint_is_a_version_of_a_registered_model(preset, store, monkeypatch):
    publish_to(store, preset)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(store))
    versions = connect(uri(store)).search_model_versions("name = 'hamflow-toy-digits-edm'")
    assert {version.tags["hamflow.seed"] for version in versions} == {"0", "1"}
    for version in versions:
        name = f"digits/edm/seed{version.tags['hamflow.seed']}"
        model = preset.checkpoints / name / "model.safetensors"
        assert version.tags["hamflow.checkpoint_sha256"] == sha256_of(model)
        assert version.run_id == runs_of(store)[name].info.run_id
        folder = mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}")
        assert (Path(folder) / "model.safetensors").read_bytes() == model.read_bytes()


def test_other_weights_are_the_next_version_and_leave_the_earlier_one_alone(preset, store):
    publish_to(store, preset)
    client = connect(uri(store))
    before = client.search_model_versions("name = 'hamflow-toy-digits-edm'")
    model = retrain(preset, "digits/edm/seed0")
    summary = publish_to(store, preset)
    after = client.search_model_versions("name = 'hamflow-toy-digits-edm'")
    assert (summary.created, summary.completed) == (0, 1)
    (new,) = {version.version for version in after} - {version.version for version in before}
    assert int(new) == 1 + max(int(version.version) for version in before)
    newest = next(version for version in after if version.version == new)
    assert newest.tags["hamflow.checkpoint_sha256"] == sha256_of(model)
    assert len(client.list_artifacts(newest.run_id, "checkpoints")) == 2


def test_publishing_twice_changes_nothing(preset, store, rows):
    with sqlite3.connect(store) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    first = publish_to(store, preset)
    before = {table: rows(table) for table in tables}
    assert before["inputs"]
    assert before["model_versions"]
    second = publish_to(store, preset)
    assert {table: rows(table) for table in tables} == before
    assert (second.created, second.completed, second.points) == (0, 0, 0)
    assert second.unchanged == first.created
    assert len(before["metrics"]) == first.points


def test_what_differs_between_equal_runs_is_written_once_and_repeats_nothing(preset, store, make_preset, tmp_path, rows):
    """A machine that has only what DVC fetched, and one that ran it all again, find everything there."""
    publish_to(store, preset)
    before = rows("metrics"), rows("tags")
    fetched = make_preset(tmp_path / "fetched")
    for path in [*fetched.root.rglob("run.json"), *fetched.root.rglob("train.jsonl")]:
        path.unlink()
    repeated = make_preset(tmp_path / "repeated")
    for path in repeated.checkpoints.rglob("run.json"):
        write_json(path, {"git_commit": "1" * 40, "git_dirty": True, "wall_seconds": 99.0})
    for other in (fetched, repeated):
        assert publish_to(store, other).unchanged == 10
    assert (rows("metrics"), rows("tags")) == before


def test_what_was_fetched_is_published_without_it_and_completed_by_who_ran_it(preset, store, make_preset, tmp_path):
    fetched = make_preset(tmp_path / "fetched")
    for path in [*fetched.root.rglob("run.json"), *fetched.root.rglob("train.jsonl")]:
        path.unlink()
    first = publish_to(store, fetched)
    client = connect(uri(store))
    run = runs_of(store)["digits/edm/seed0"]
    assert len(history(client, run, "train/loss")) == 5
    assert "mlflow.source.git.commit" not in run.data.tags
    second = publish_to(store, preset)
    run = runs_of(store)["digits/edm/seed0"]
    assert run.data.tags["mlflow.source.git.commit"] == "0" * 40
    assert len(history(client, run, "train/images_per_second")) == 5
    assert len(history(client, run, "train/loss")) == 5
    assert second.created == 0
    assert second.points == 5 * 4  # the speeds of four models
    assert first.points > second.points


def other_losses(lines):
    return [line | {"loss": line["loss"] + 1} for line in lines]


def some_more(lines):
    return [*lines, lines[-1] | {"kimg": 99.0}]


@pytest.mark.parametrize("later", [other_losses, some_more])
def test_the_log_of_a_later_training_does_not_describe_weights_that_were_fetched_back(preset, store, later):
    folder = preset.checkpoints / "digits/edm/seed0"
    lines = read_jsonl(folder / "train.jsonl")
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in later(lines)))
    publish_to(store, preset)
    client, run = connect(uri(store)), runs_of(store)["digits/edm/seed0"]
    assert history(client, run, "train/loss") == [(1000 * line["kimg"], line["loss"]) for line in lines]
    assert history(client, run, "train/images_per_second") == []
    assert not {"mlflow.source.git.commit", "hamflow.wall_seconds"} & run.data.tags.keys()
    assert "hamflow.wall_seconds" in runs_of(store)["digits/edm/seed1"].data.tags


def test_without_a_log_the_circumstances_are_written(preset, store):
    (preset.checkpoints / "digits/edm/seed0/train.jsonl").unlink()
    publish_to(store, preset)
    assert runs_of(store)["digits/edm/seed0"].data.tags["hamflow.wall_seconds"] == "12.5"


def test_a_training_that_was_repeated_to_other_numbers_has_one_curve(preset, store):
    """As under other code. The run of the earlier training is deleted, from which `mlflow runs restore` has it back."""
    publish_to(store, preset)
    first = runs_of(store)["digits/edm/seed0"]
    folder = preset.checkpoints / "digits/edm/seed0"
    lines = other_losses(read_jsonl(folder / "train.jsonl"))
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = folder / "model.safetensors"
    curve = [{key: line[key] for key in line if key != "images_per_second"} for line in lines]
    save_tensors(model, {"weight": torch.full((3,), -1.0)}, load_metadata(model) | {"history": curve})
    for _ in range(2):
        publish_to(store, preset)
        client, run = connect(uri(store)), runs_of(store)["digits/edm/seed0"]
        assert history(client, run, "train/loss") == [(1000 * line["kimg"], line["loss"]) for line in lines]
    assert run.info.run_id != first.info.run_id
    assert client.get_run(first.info.run_id).info.lifecycle_stage == "deleted"


def test_an_experiment_that_was_deleted_is_named_with_the_way_back(preset, store):
    publish_to(store, preset)
    client = connect(uri(store))
    experiment = experiment_id(client, uri(store), "test")
    client.delete_experiment(experiment)
    with pytest.raises(TrackingError, match=f"mlflow experiments restore --experiment-id {experiment}"):
        publish_to(store, preset)
    client.restore_experiment(experiment)
    publish_to(store, preset)


def test_a_new_metric_adds_its_points_alone(preset, store, rows):
    first = publish_to(store, preset)
    folder = preset.metrics / "digits/edm/seed0"
    (folder / "heun-nfe9.json").write_text((folder / "heun-nfe5.json").read_text().replace('"nfe": 5', '"nfe": 9'))
    second = publish_to(store, preset)
    assert (second.created, second.completed, second.points) == (0, 1, 1)
    assert len(rows("metrics")) == first.points + 1


def test_a_new_figure_changes_the_run_of_the_preset_alone(preset, store):
    publish_to(store, preset)
    (preset.results / "figures/training.png").write_text("new")
    summary = publish_to(store, preset)
    assert (summary.created, summary.completed, summary.points) == (0, 1, 0)
    artefacts = connect(uri(store)).list_artifacts(runs_of(store)["toy"].info.run_id, "figures")
    assert [file.path for file in artefacts] == ["figures/nfe.png", "figures/training.png"]


def test_the_environment_overrides_the_store(preset, store, tmp_path, monkeypatch, rows):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(store))
    publish(preset, f"sqlite:///{tmp_path}/other.db", "test")
    assert rows("metrics")
    assert not (tmp_path / "other.db").exists()


def test_the_environment_overrides_the_experiment(preset, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    publish_to(store, preset)
    client = connect(uri(store))
    assert client.get_experiment_by_name("test") is None
    assert len(find_runs(client, experiment_id(client, uri(store), "mine"))) == 10


def test_a_folder_that_is_no_seed_is_nobodys(preset, store):
    for kind in (preset.checkpoints, preset.metrics):
        shutil.copytree(kind / "digits/edm/seed0", kind / "digits/edm/seed0-backup")
    assert publish_to(store, preset).created == 10


@pytest.mark.parametrize("wrong", [{"spec": [1]}, {"data_sha256": 5}, {"kimg": {"a": [float("inf")]}}])
def test_metadata_that_are_not_ours_are_explained(preset, store, rows, wrong, monkeypatch):
    name = "digits/edm/seed0/model.safetensors"
    read = load_metadata
    monkeypatch.setattr("hamflow.tracking.gather.load_metadata", lambda path: read(path) | (wrong if name in str(path) else {}))
    with pytest.raises(CheckpointError, match=name):
        publish_to(store, preset)
    assert not rows("runs")


def test_a_metrics_file_whose_origin_is_not_ours_is_explained(preset, store):
    path = preset.metrics / "digits/data/seed0/real-nfe0.json"
    for wrong in (5, {"data_sha256": 5}):
        write_json(path, read_json(path) | {"provenance": wrong})
        with pytest.raises(DataError, match="real-nfe0"):
            publish_to(store, preset)


def test_a_run_without_its_checkpoint_is_left_out_and_named(preset, store):
    (preset.checkpoints / "digits/edm/seed0/model.safetensors").unlink()
    summary = publish_to(store, preset)
    assert summary.missing == ["digits/edm/seed0"]
    assert "digits/edm/seed0" in str(summary)


def test_an_empty_preset_a_file_store_and_files_that_are_not_ours_are_explained(preset, store, tmp_path, rows):
    with pytest.raises(DataError, match="nothing to publish"):
        publish(Preset("none", tmp_path), uri(store), "test")
    with pytest.raises(TrackingError, match="file store"):
        publish(preset, str(tmp_path / "mlruns"), "test")
    bad = preset.metrics / "digits/edm/seed0/heun-nfe5.json"
    good = bad.read_text()
    bad.write_text('{"metrics": 3}')
    with pytest.raises(DataError, match="heun-nfe5"):
        publish_to(store, preset)
    bad.write_text(good)
    model = preset.checkpoints / "digits/edm/seed0/model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="seed0"):
        publish_to(store, preset)
    assert not rows("metrics")
