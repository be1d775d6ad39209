"""The table of verdicts: who is compared with whom, what an interval says, and what is no comparison."""

import csv

import pytest

from hamflow.pipeline.records import MetricsError, read
from hamflow.report import beyond

KNOWN = ["edm"]


def lines(folder):
    return {(line["method"], line["nfe"]): line for line in csv.DictReader((folder / "beyond.csv").open())}


def test_each_verdict_is_what_its_interval_says(records, tmp_path):
    values = {("edm", "heun", 9): 2.0, ("good", "heun", 9): 1.5, ("bad", "heun", 9): 2.5, ("alike", "heun", 9): 2.0}
    beyond.tabulate(records(values), KNOWN, tmp_path)
    found = lines(tmp_path)
    assert {method: line["verdict"] for (method, _), line in found.items()} == {
        "good": "helps",
        "bad": "hurts",
        "alike": "undecided",
    }
    for (method, _), line in found.items():
        assert float(line["difference"]) == pytest.approx(values[method, "heun", 9] - 2.0)
        assert float(line["low"]) < float(line["difference"]) < float(line["high"])
        assert float(line["reference"]) == 2.0
    text = (tmp_path / "beyond.md").read_text()
    assert "-25 (" in text
    assert "+25 (" in text


def test_noise_that_two_methods_do_not_share_leaves_a_difference_undecided(records, tmp_path):
    beyond.tabulate(records({("edm", "heun", 9): 2.0, ("other", "heun", 9): 1.9}, deviation=1.0), KNOWN, tmp_path)
    assert lines(tmp_path)["other", "9.0"]["verdict"] == "undecided"


def test_each_method_has_its_best_sampler_at_an_nfe(records, tmp_path):
    values = {("edm", "heun", 9): 3.0, ("edm", "multistep", 9): 2.0, ("other", "heun", 9): 1.0, ("other", "multistep", 9): 4.0}
    beyond.tabulate(records(values), KNOWN, tmp_path)
    line = lines(tmp_path)["other", "9.0"]
    assert (line["sampler"], line["against_sampler"], float(line["difference"])) == ("heun", "multistep", -1.0)


@pytest.mark.parametrize(("nfe", "against"), [(1, 5), (5, 5), (8, 9), (99, 9)])
def test_the_known_one_is_taken_at_the_same_budget_or_the_next_larger_or_its_largest(records, tmp_path, nfe, against):
    values = {("edm", "heun", 5): 3.0, ("edm", "heun", 9): 2.0, ("other", "heun", nfe): 1.0}
    beyond.tabulate(records(values), KNOWN, tmp_path)
    assert float(lines(tmp_path)["other", f"{nfe}.0"]["against_nfe"]) == against


def test_known_ones_are_compared_with_each_other_but_not_with_themselves(records, tmp_path):
    values = {("edm", "heun", 9): 2.0, ("oscillation", "heun", 9): 1.5}
    frame = beyond.tabulate(records(values), ["edm", "oscillation"], tmp_path)
    assert list(zip(frame["method"], frame["against"], strict=True)) == [("edm", "oscillation"), ("oscillation", "edm")]
    assert list(frame["difference"]) == pytest.approx([0.5, -0.5])


def test_what_was_not_resampled_is_compared_with_nothing(tmp_path, make_result, write_result):
    found = [read(write_result(tmp_path / "metrics", make_result("digits", method))) for method in ("edm", "oscillation")]
    with pytest.raises(MetricsError, match="nothing to compare with edm"):
        beyond.tabulate(found, KNOWN, tmp_path)


def test_different_numbers_of_resamples_are_no_pairs(records, tmp_path):
    found = records({("edm", "heun", 9): 2.0}) + records({("other", "heun", 9): 2.0}, draws=100)
    with pytest.raises(MetricsError, match="no pairs"):
        beyond.tabulate(found, KNOWN, tmp_path)
