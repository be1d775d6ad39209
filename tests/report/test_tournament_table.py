"""The table of the tournaments: who is marked, which bound is the sharpest, and what is no tournament."""

import csv
import re

import numpy as np
import pytest

from hamflow.errors import DataError
from hamflow.files import write_json
from hamflow.pipeline.paths import Preset
from hamflow.report import tournament

MODELS = ["oscillation", "edm", "fm"]
LABELS = {"edm": "EDM", "oscillation": "Oscillation HGF", "fm": "Flow matching", "reflection": "Reflection HGF"}
PARAMETERS = {
    "preset": "toy",
    "seeds": [3, 4],
    "run": {"datasets": ["digits"], "methods": [*LABELS]},
    "datasets": {"digits": {}},
    "metrics": {"tournament": True, "hsd": {"sigmas": [0.1]}},
}


def held(losses, error):
    """A tournament in which every paired difference has one standard error."""
    losses = np.array(losses)
    differences, errors = losses[:, None] - losses[None], np.full((3, 3), error) - error * np.eye(3)
    return {
        "models": MODELS,
        "sigma": 0.1,
        "n": 500,
        "denoising_loss": losses.tolist(),
        "loss_differences": {"values": differences.tolist(), "standard_errors": errors.tolist()},
        "standing": {"values": (losses - losses.mean()).tolist(), "standard_errors": [error] * 3},
        "rival_bound": [{"rival": "edm", "value": 2e-4, "standard_error": 1e-5}] * 3,
    }


@pytest.fixture
def write(tmp_path, monkeypatch, make_result, write_result):
    """Write a tournament and the discrepancies of its models' own estimator; returns the preset."""
    monkeypatch.chdir(tmp_path)
    preset = Preset("toy")

    def write(losses=(0.3, 0.2, 0.25), error=1e-3, own=1e-4, **changes):
        about = {"preset": "toy", "dataset": "digits", "dataset_label": "Digits", "methods": LABELS, "seed": 3}
        result = {**about, "samples": "held-out data", "tournaments": [held(losses, error)], **changes}
        write_json(preset.tournament("digits"), {key: value for key, value in result.items() if value is not None})
        for method in LABELS:
            row = {"value": own, "standard_error": 1e-6, "n": 500, "features": "features"}
            content = make_result(method=method, seed=3, sampler="none", nfe=0, metrics={"hsd@sigma=0.1": row})
            write_result(preset.metrics, content, "hsd")
        return preset

    return write


def lines(folder):
    return {line["method"]: line for line in csv.DictReader((folder / "tournament.csv").open())}


def test_differences_to_the_best_and_the_sharpest_bound_stand_in_the_line_of_each_model(write, tmp_path):
    frame = tournament.tabulate(write(), PARAMETERS, tmp_path)
    found = lines(tmp_path)
    assert list(found) == ["edm", "oscillation", "reflection", "fm"]  # the paper's order
    assert [float(found[m]["loss_above_best"]) for m in MODELS] == pytest.approx([0.1, 0, 0.05])
    assert [found[m]["clear"] for m in MODELS] == ["False", "True", "False"]
    judges = {"edm": "no rival", "oscillation": "EDM", "fm": "EDM"}
    assert {m: (found[m]["hsd"], found[m]["hsd_by"]) for m in MODELS} == {m: ("0.0002", by) for m, by in judges.items()}
    assert (found["reflection"]["loss"], found["reflection"]["hsd_by"]) == ("", "features")
    assert (frame["n"] == 500).all()


def test_a_trained_estimator_that_finds_more_than_any_rival_is_the_row(write, tmp_path):
    tournament.tabulate(write(own=3e-4), PARAMETERS, tmp_path)
    assert {(line["hsd"], line["hsd_by"]) for line in lines(tmp_path).values()} == {("0.0003", "features")}


@pytest.mark.parametrize(("error", "marked"), [(0.016, True), (0.017, False)])
def test_a_model_is_marked_only_if_it_beats_every_other_by_three_standard_errors(write, tmp_path, error, marked):
    """Its smallest difference is .05."""
    tournament.tabulate(write(error=error), PARAMETERS, tmp_path)
    (row,) = [line for line in (tmp_path / "tournament.md").read_text().splitlines() if line.startswith("| EDM")]
    assert (r"0.200\*" in row) is marked
    page = (tmp_path / "tournament.html").read_text()
    assert "<title>Models against each other</title>" in page
    for fact in ("preset toy", "training seed 3", "held-out data", "n = 500", "sigma = 0.1"):
        assert fact in page


def test_equal_tournaments_give_equal_bytes(write, tmp_path):
    preset = write()
    for folder in "ab":
        tournament.tabulate(preset, PARAMETERS, tmp_path / folder)
    for ending in ("csv", "md", "html"):
        assert len({(tmp_path / folder / f"tournament.{ending}").read_bytes() for folder in "ab"}) == 1


@pytest.mark.parametrize("changes", [{"samples": None}, {"tournaments": [{"models": MODELS}]}])
def test_what_is_no_complete_tournament_is_a_paragraph(write, tmp_path, changes):
    preset = write(**changes)
    with pytest.raises(DataError, match=re.escape(str(preset.tournament("digits")))):
        tournament.tabulate(preset, PARAMETERS, tmp_path)
