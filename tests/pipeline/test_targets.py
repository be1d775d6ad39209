"""What a preset consists of, and what the workflow does beside its jobs; no Snakemake is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.files import write_text
from hamflow.methods.base import METHODS
from hamflow.pipeline import made, targets, workflow
from hamflow.pipeline.paths import Preset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parameters():
    return config.load(["params.yaml", "workflow/presets/smoke.yaml"], ["seeds=[0, 2]"])


def test_the_metrics_are_of_every_bound_run_and_setting(parameters):
    found = targets.metrics(parameters)
    runs = {dataset: targets.methods(parameters, dataset) for dataset in parameters["run"]["datasets"]}
    settings = sum(len(config.sampler_settings(parameters, m)) + 1 for methods in runs.values() for m in methods)
    assert len(found) == len(set(found)) == len(runs) + len(parameters["seeds"]) * settings  # bounds; discrepancies are the + 1


def test_the_smoke_preset_trains_every_kind_that_can_be_a_row(parameters):
    trained = targets.methods(parameters)
    trained += [parent for method in trained for parent in targets.parents(parameters, method)]
    kinds = {parameters["methods"][method]["kind"] for method in trained}
    of_the_study = {"hsm", "score_matching"}  # fields of one noise level, which cannot draw samples
    assert kinds | of_the_study == set(METHODS.names())
    assert "comparison" in parameters["studies"]


def test_verdicts_are_a_table_where_they_are_asked_for(parameters):
    table = Path("results/smoke/tables/beyond.csv")
    asked = config.merge(parameters, {"evaluation": {"more": ["paired"], "beyond": ["edm"]}})
    assert table in targets.tables(config.check(asked))
    for alone in ({"run": {"methods": ["edm"]}}, {"run": {"datasets": ["checkerboard"]}}, {"evaluation": {"beyond": None}}):
        assert table not in targets.tables(config.check(config.merge(asked, alone)))


def test_a_data_set_has_the_methods_that_it_names(parameters):
    only = config.merge(parameters, {"datasets": {"digits": {"methods": ["edm"]}}})
    runs = {(run.dataset, run.method) for run in targets.runs(config.check(only))}
    assert {method for dataset, method in runs if dataset == "digits"} == {"edm"}
    assert ("checkerboard", "reflection") in runs
    assert "stylegan2_ada" not in targets.methods(only)


def test_the_largest_setting_is_the_one_of_most_evaluations(parameters):
    settings = parameters | {"sampling": {"settings": {"dopri5": ["auto"], "heun": [5, 35], "multistep": [17]}}}
    assert targets.largest_setting(settings, "edm") == "heun-nfe35"
    own = parameters["methods"] | {"edm": parameters["methods"]["edm"] | {"samplers": {"direct": [1]}}}
    assert targets.largest_setting(settings | {"methods": own}, "edm") == "direct-nfe1"


def test_methods_are_grouped_by_their_samplers(parameters):
    methods = {name: parameters["methods"][name] for name in ("edm", "oscillation")} | {"gan": {"samplers": {"direct": [1]}}}
    groups = targets.methods_by_settings(parameters | {"methods": methods})
    common = tuple(targets.settings(parameters, "edm"))
    assert groups == {common: ["edm", "oscillation"], ("direct-nfe1",): ["gan"]}


def test_images_are_trained_before_points(parameters):
    costs = {dataset: targets.cost(parameters, dataset, "edm") for dataset in ("digits", "checkerboard")}
    assert costs["digits"] > costs["checkerboard"]


def test_data_that_all_presets_share_are_not_redefined(parameters):
    digits = parameters["datasets"]["digits"] | {"options": {"holdout": 0.5}}
    with pytest.raises(ConfigurationError, match=r"datasets\.digits\.options"):
        workflow.refuse_changed_data(parameters | {"datasets": {"digits": digits}}, Path("params.yaml"))
    workflow.refuse_changed_data(parameters | {"datasets": {"mine": digits}}, Path("params.yaml"))


@pytest.mark.parametrize("place", ["workflow/presets/first.yaml", "results/first/params.yaml"])
def test_two_presets_do_not_define_one_data_set_differently(parameters, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    mine = parameters["datasets"]["digits"] | {"options": {"holdout": 0.5}}
    first = {"preset": "first", "run": {"datasets": ["mine"]}, "datasets": {"mine": mine}}
    write_text("params.yaml", "datasets: {}\n")
    write_text(place, config.dump(first))
    second = parameters | {"preset": "second", "run": {"datasets": ["mine"]}, "datasets": {"mine": mine}}
    workflow.refuse_changed_data(second, Path("params.yaml"))
    other = {"mine": mine | {"options": {"holdout": 0.25}}}
    with pytest.raises(ConfigurationError, match=f"but {{'holdout': 0.5}} in {place}"):
        workflow.refuse_changed_data(second | {"datasets": other}, Path("params.yaml"))
    workflow.refuse_changed_data(second | {"datasets": other, "preset": "first"}, Path("params.yaml"))  # itself, changed


def test_the_user_s_own_images_are_a_dependency_of_dvc_s_stage(parameters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = parameters["datasets"]["digits"] | {"options": {"path": "pictures/mine"}}
    given = parameters | {"run": {"datasets": ["mine"]}, "datasets": {"mine": mine}}
    write_text("dvc.yaml", "stages: {data: {deps: [src]}}\n")
    with pytest.raises(ConfigurationError, match="does not depend on pictures/mine"):
        workflow.refuse_what_dvc_does_not_see(given, "data")
    workflow.refuse_what_dvc_does_not_see(given, None)  # it is not DVC that runs this
    for line in ("pictures", "./pictures/mine", str(tmp_path / "pictures")):
        write_text("dvc.yaml", f"stages: {{data: {{deps: [src, {line}]}}}}\n")
        workflow.refuse_what_dvc_does_not_see(given, "data")


def test_a_data_set_is_among_the_files_of_dvc(parameters, tmp_path, monkeypatch):
    """One that .dvcignore hides is no dependency of what follows from it: its other bytes would repeat nothing."""
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], check=True)
    write_text("dvc.yaml", "stages: {data: {deps: [src]}}\n")
    hidden = (ROOT / ".dvcignore").read_text()
    write_text(".dvcignore", hidden)
    workflow.refuse_what_dvc_does_not_see(parameters, "data")
    given = parameters | {
        "run": {"datasets": ["digits", "mine"]},
        "datasets": parameters["datasets"] | {"mine": {"options": {}}},
    }
    with pytest.raises(ConfigurationError, match="hides data/mine from DVC") as refused:
        workflow.refuse_what_dvc_does_not_see(given, "data")
    line = refused.value.fix.split("`")[1]
    write_text(".dvcignore", hidden.replace("/data/*\n", f"/data/*\n{line}\n"))
    workflow.refuse_what_dvc_does_not_see(given, "data")


def test_parameters_are_written_once_and_again_only_when_they_change(parameters, tmp_path):
    preset = Preset("smoke", tmp_path)
    workflow.write_parameters(parameters, preset)
    os.utime(preset.parameters, (1, 1))
    workflow.write_parameters(parameters, preset)
    assert preset.parameters.stat().st_mtime == 1
    workflow.write_parameters(parameters | {"seeds": [7]}, preset)
    assert config.load([preset.parameters])["seeds"] == [7]


def test_kept_checkpoints_go_and_states_stay(tmp_path):
    preset = Preset("p", tmp_path)
    state = preset.run("d", "m", 0).checkpoints / "state"
    for name in ("one/model.safetensors", "two/state.safetensors"):
        (state / name).parent.mkdir(parents=True)
        (state / name).touch()
    workflow.forget_kept_checkpoints(preset)
    assert [path.name for path in state.iterdir()] == ["two"]


def test_the_fingerprint_of_the_user_s_files_changes_with_them(tmp_path):
    before = made.users_files(str(tmp_path))
    (tmp_path / "image.png").write_bytes(b"1")
    after = made.users_files(str(tmp_path))
    assert len({before, after, made.users_files(None)}) == 2  # an empty folder is like none
