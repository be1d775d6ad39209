"""The one reader of metrics records: what it refuses, and what must agree."""

import json
import re

import pytest

from hamflow.pipeline.records import MetricsError, check_together, find, read

METRIC = {"value": 1.5, "n": 1797, "features": "efficientnet_lite0", "curve": {"times": [0.1]}}
CONTENT = {
    "preset": "toy",
    "dataset": "digits",
    "dataset_label": "Digits",
    "conditional": False,
    "method": "edm",
    "label": "EDM",
}
CONTENT |= {
    "sampler": "heun",
    "nfe": 35,
    "seed": 1,
    "metrics": {"fd": METRIC},
    "provenance": {"data_sha256": "ab", "python": "3"},
}


def put(folder, setting="heun-nfe35", **changes):
    """A record at the path of its content."""
    content = CONTENT | changes
    path = folder / content["dataset"] / content["method"] / f"seed{content['seed']}" / f"{setting}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_record_is_its_content_and_its_place(tmp_path):
    record = read(put(tmp_path))
    assert (record.setting, record.n, record.sampled) == ("heun-nfe35", 1797, True)
    assert (record.metrics["fd"].value, record.metrics["fd"].standard_error) == (1.5, None)
    assert {key: getattr(record, key) for key in CONTENT if key != "metrics"} == {
        key: value for key, value in CONTENT.items() if key != "metrics"
    }
    assert not read(put(tmp_path, "real-nfe0", method="data", sampler="real", nfe=0)).sampled
    assert not read(put(tmp_path, "hsd", sampler="none", nfe=0)).sampled


def test_records_are_found_beside_circumstances_and_half_written_files(tmp_path):
    ours = [put(tmp_path, name) for name in ("heun-nfe35", "dopri5-nfeauto", "hsd")]
    for name in ("run", "hsd.run", "heun-nfe35.run", ".heun-nfe35", "notes"):
        put(tmp_path, name)
    assert find([tmp_path, tmp_path / "digits"]) == sorted(ours)
    assert find([tmp_path], ["hsd"]) == ours[2:]


WRONG = {
    "a wrong type": ({"seed": "1"}, "seed"),
    "a seed that is true": ({"nfe": True}, "nfe"),
    "no metrics": ({"metrics": {}}, "`metrics` is empty"),
    "no n": ({"metrics": {"fd": {"value": 1.0, "features": "x"}}}, "missing required field `n`"),
    "a value that is no number": ({"metrics": {"fd": METRIC | {"value": "abc"}}}, "value"),
    "a value that is true": ({"metrics": {"fd": METRIC | {"value": True}}}, "value"),
    "a value without bounds": ({"metrics": {"fd": METRIC | {"value": float("inf")}}}, "inf"),
    "a value beyond the numbers": ({"metrics": {"fd": METRIC | {"value": 10**400}}}, "range"),
    "an error that is no number": ({"metrics": {"fd": METRIC | {"standard_error": []}}}, "standard_error"),
    "an error that is not finite": ({"metrics": {"fd": METRIC | {"standard_error": float("nan")}}}, "nan"),
    "an n that is no integer": ({"metrics": {"fd": METRIC | {"n": "1797"}}}, "[.]n"),
    "features that are no name": ({"metrics": {"fd": METRIC | {"features": []}}}, "features"),
    "no provenance": ({"provenance": None}, "provenance"),
    "a hash that is no text": ({"provenance": {"data_sha256": 3}}, "data_sha256"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_record_is_refused(tmp_path, case):
    changes, words = WRONG[case]
    (tmp_path / "record.json").write_text(json.dumps(CONTENT | changes))
    with pytest.raises(MetricsError, match=f"record.json is not a metrics file: .*{words}"):
        read(tmp_path / "record.json")


@pytest.mark.parametrize("text", ["", "[]", "3", '{"preset": "toy"', "[" * 100_000, "\x00"])
def test_a_torn_file_is_named(tmp_path, text):
    path = tmp_path / "heun-nfe35.json"
    path.write_text(text)
    with pytest.raises(MetricsError, match=re.escape(str(path))):
        read(path)
    with pytest.raises(MetricsError, match="absent.json"):
        read(tmp_path / "absent.json")


def test_a_record_under_another_name_is_refused(tmp_path):
    path = put(tmp_path)
    path.write_text(json.dumps(CONTENT | {"method": "vp_sde"}))
    with pytest.raises(MetricsError, match="digits/vp_sde/seed1\\n.*another name"):
        read(path)


CONTRADICTIONS = {
    "presets": {"preset": "other"},
    "labels": {"label": "Another"},
    "sample counts": {"metrics": {"fd": METRIC | {"n": 64}}},
    "feature networks": {"metrics": {"fd": METRIC | {"features": "x"}}},
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_records_that_contradict_each_other_are_refused(tmp_path, what):
    records = [read(put(tmp_path)), read(put(tmp_path, seed=2, **CONTRADICTIONS[what]))]
    with pytest.raises(MetricsError, match=f"two {what}: .*seed1.*seed2"):
        check_together(records)


def test_counts_of_the_bound_and_of_the_model_itself_are_their_own(tmp_path):
    other = {"fd": METRIC | {"n": 898}}
    bound = put(tmp_path, "real-nfe0", method="data", label="bound", sampler="real", metrics=other)
    check_together([read(put(tmp_path)), read(bound), read(put(tmp_path, "hsd", sampler="none", metrics=other))])


def test_a_setting_that_lies_twice_is_refused(tmp_path):
    with pytest.raises(MetricsError, match="the same setting and seed"):
        check_together([read(put(tmp_path / folder)) for folder in "ab"])
