"""Parameters: merging, and specs that hold what determines a job and nothing else."""

import copy

import pytest

from hamflow import config
from hamflow.errors import ConfigurationError


@pytest.fixture
def params():
    return config.load(["params.yaml"])


def test_mappings_merge_and_lists_are_replaced():
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 3}
    assert config.merge(base, {"a": {"y": [5]}, "c": 4}) == {"a": {"x": 1, "y": [5]}, "b": 3, "c": 4}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 3}


def test_a_null_takes_a_key_away(params):
    times = "methods.reflection.times={law: uniform, decades: null}"
    assert config.load(["params.yaml"], [times])["methods"]["reflection"]["times"] == {"law": "uniform"}
    with pytest.raises(ConfigurationError, match="'seeds' is a required property"):
        config.load(["params.yaml"], ["seeds=null"])


def test_training_settings_come_from_all_the_data_set_and_the_method_in_this_order(params):
    params["training"]["batch"] = 1
    params["datasets"]["digits"]["training"] = {"batch": 2, "learning_rate": 0.2}
    params["methods"]["edm"]["training"] = {"learning_rate": 0.3}
    training = config.training_spec(params, "digits", "edm")["training"]
    assert (training["batch"], training["learning_rate"]) == (2, 0.3)
    assert config.training_spec(params, "digits", "oscillation")["training"]["learning_rate"] == 0.2


SPECS = {
    "dataset": lambda c: config.dataset_spec(c, "digits"),
    "training": lambda c: config.training_spec(c, "digits", "edm"),
    "sampling": lambda c: config.sampling_spec(c, "digits", "edm"),
    "evaluation": lambda c: config.evaluation_spec(c, "digits", "edm"),
}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"training": {"learning_rate": 0.5}}, {"training"}),
        ({"methods": {"edm": {"training": {"learning_rate": 0.5}}}}, {"training"}),
        ({"methods": {"oscillation": {"training": {"learning_rate": 0.5}}}}, set()),
        ({"sampling": {"settings": {"heun": [3]}}}, {"sampling"}),
        ({"datasets": {"rings": {"n_samples": 7}}}, set()),
        ({"datasets": {"digits": {"n_samples": 7}}}, {"sampling", "evaluation"}),
        ({"datasets": {"digits": {"options": {"holdout": 0.1}}}}, {"dataset"}),
        ({"methods": {"edm": {"label": "other"}}}, {"evaluation"}),
        ({"tracking": {"experiment": "other"}}, set()),
        ({"seeds": [0, 1]}, set()),
    ],
)
def test_a_change_reaches_the_specs_that_it_concerns_and_no_other(params, change, changed):
    before = {name: spec(params) for name, spec in SPECS.items()}
    after = {name: spec(config.check(config.merge(copy.deepcopy(params), change))) for name, spec in SPECS.items()}
    assert {name for name in SPECS if before[name] != after[name]} == changed
