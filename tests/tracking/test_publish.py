"""Publishing: complete, and twice the same as once."""

import pytest

from hamflow.errors import CheckpointError, DataError
from hamflow.files import read_json
from hamflow.tracking import publish, read_jsonl, run_key
from hamflow.tracking.store import TrackingError, connect, experiment_id, find_run, find_runs


@pytest.fixture
def preset(make_preset, tmp_path):
    return make_preset(tmp_path)


def uri(store) -> str:
    return f"sqlite:///{store}"


def history(client, run, name) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))


def test_a_run_holds_the_curve_the_metrics_the_parameters_and_the_provenance(preset, store, spec):
    results, checkpoints = preset
    publish(results, checkpoints, uri(store), "test")
    client = connect(uri(store))
    key = run_key("toy", "digits", "edm", 1, spec("edm"))
    run = find_run(client, experiment_id(client, uri(store), "test"), key)

    curve = [(1000 * r["kimg"], r["loss"]) for r in read_jsonl(checkpoints / "digits/edm/seed1/train.jsonl")]
    assert history(client, run, "train/loss") == curve
    files = (results / "metrics/digits/edm/seed1").glob("*.json")
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
    assert run.info.status == "FINISHED"


def test_one_run_for_each_model_below_a_parent_with_the_artefacts(preset, store):
    summary = publish(*preset, uri(store), "test")
    client = connect(uri(store))
    runs = find_runs(client, experiment_id(client, uri(store), "test")).values()
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.info.run_name for run in runs) == [
        "digits/data/seed0",
        "digits/edm/seed0",
        "digits/edm/seed1",
        "digits/oscillation/seed0",
        "digits/oscillation/seed1",
        "toy",
    ]
    assert summary.created == len(runs)
    assert [run.info.run_name for run in parents] == ["toy"]
    assert [file.path for file in client.list_artifacts(parents[0].info.run_id, "tables")] == ["tables/table1.csv"]


def test_publishing_twice_changes_nothing(preset, store, rows):
    tables = ("experiments", "runs", "metrics", "params", "tags")
    first = publish(*preset, uri(store), "test")
    before = {table: rows(table) for table in tables}
    second = publish(*preset, uri(store), "test")
    assert {table: rows(table) for table in tables} == before
    assert (second.created, second.completed, second.points) == (0, 0, 0)
    assert second.unchanged == first.created
    assert len(before["metrics"]) == first.points


def test_a_new_metric_adds_its_points_alone(preset, store, rows):
    results, checkpoints = preset
    first = publish(results, checkpoints, uri(store), "test")
    folder = results / "metrics/digits/edm/seed0"
    (folder / "heun-nfe9.json").write_text((folder / "heun-nfe5.json").read_text().replace('"nfe": 5', '"nfe": 9'))
    second = publish(results, checkpoints, uri(store), "test")
    assert (second.created, second.completed, second.points) == (0, 1, 1)
    assert len(rows("metrics")) == first.points + 1


def test_the_environment_overrides_the_store(preset, store, tmp_path, monkeypatch, rows):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(store))
    publish(*preset, f"sqlite:///{tmp_path}/other.db", "test")
    assert rows("metrics")
    assert not (tmp_path / "other.db").exists()


def test_a_run_without_its_checkpoint_is_left_out_and_named(preset, store):
    results, checkpoints = preset
    (checkpoints / "digits/edm/seed0/model.safetensors").unlink()
    summary = publish(results, checkpoints, uri(store), "test")
    assert summary.missing == ["digits/edm/seed0"]
    assert "digits/edm/seed0" in str(summary)


def test_an_empty_preset_a_file_store_and_a_truncated_checkpoint_are_explained(preset, store, tmp_path, rows):
    results, checkpoints = preset
    with pytest.raises(DataError, match="nothing to publish"):
        publish(tmp_path / "none", tmp_path / "none", uri(store), "test")
    with pytest.raises(TrackingError, match="file store"):
        publish(results, checkpoints, str(tmp_path / "mlruns"), "test")
    model = checkpoints / "digits/edm/seed0/model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="seed0"):
        publish(results, checkpoints, uri(store), "test")
    assert not rows("metrics")
