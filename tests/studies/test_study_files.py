"""What the experiments leave: files, figures and tables, and the command line."""

import json

import numpy as np
import pytest
from tiny_studies import NET, PARAMETERS, TINY

from hamflow.cli import main
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import read_json, write_json
from hamflow.pipeline.paths import Preset
from hamflow.pipeline.targets import STUDY_TABLES
from hamflow.studies import about, figure, get, names, run
from hamflow.studies.comparison import COSTS

pytestmark = pytest.mark.xdist_group("studies")  # whose results are made once


@pytest.fixture
def there(results, monkeypatch):
    """The working directory in which the results lie."""
    monkeypatch.chdir(results.parents[2])


@pytest.mark.parametrize("name", figure.names(PARAMETERS))
def test_every_result_has_a_figure_of_fixed_bytes(there, name, tmp_path):
    assert figure.inputs(PARAMETERS, name)["result"].exists()
    for output in ("one.png", "two.png"):
        figure.draw(PARAMETERS, name, tmp_path / output)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.pdf").stat().st_size > 0


def test_a_figure_shows_the_result_and_nothing_is_computed_for_it(there, tmp_path):
    for kind in ("phase_space", "reflection"):
        path = Preset("toy").study(kind)
        figure.draw(PARAMETERS, f"study-{kind}", tmp_path / "one.png")
        result = read_json(path)
        write_json(path, result | {"points": [[[0.5, 0.5]]] * 5, "flows": result.get("flows", [])[::-1]})
        figure.draw(PARAMETERS, f"study-{kind}", tmp_path / "two.png")
        write_json(path, result)
        assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", names())
def test_the_caption_is_the_first_paragraph_of_the_file(name):
    assert len(about(name)) > 60
    assert "toy" in figure.caption(PARAMETERS, f"study-{name}")


def test_comparison_table_has_a_line_for_each_row(there, results, tmp_path):
    figure.tabulate(PARAMETERS, "comparison", tmp_path / "table.csv")
    rows = read_json(results / "comparison.json")["rows"]
    head, *lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    assert head[:3] == ["method", "budget", "updates"]
    assert [line[:3] for line in lines] == [[row["method"], row["budget"], str(row["steps"])] for row in rows]
    errors = [float(line[head.index("score_error_std")]) for line in lines]
    assert errors == pytest.approx([row["score_error"]["std"] for row in rows], rel=1e-3)
    assert len((tmp_path / "table.md").read_text().splitlines()) == len(rows) + 2


WRONG = {"a list": [], "a text": "x", "nothing": {}, "rows of texts": {"rows": ["x"]}, "no curves": {"curves": {}}}
WRONG |= {"fields of texts": {"fields": "x"}, "flows of texts": {"flows": ["x"]}}
WRONG |= {"no points": {"times": [1], "points": []}}


@pytest.mark.parametrize("study", names())
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_is_a_paragraph(tmp_path, monkeypatch, study, case):
    monkeypatch.chdir(tmp_path)
    path = Preset("toy").study(study)
    write_json(path, WRONG[case])
    with pytest.raises(DataError, match=f"{study}.json is no complete result"):
        figure.draw(PARAMETERS, f"study-{study}", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_a_result_that_is_not_there_is_a_paragraph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"comparison\.json"):
        figure.tabulate(PARAMETERS, "comparison", tmp_path / "out.csv")


def test_a_symmetry_table_has_the_gains_of_pairs_of_runs(there, results, tmp_path):
    figure.tabulate(PARAMETERS, "symmetry", tmp_path / "table.csv")
    head, *lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    rows = read_json(results / "symmetry.json")["rows"]
    assert [line[:2] for line in lines] == [[str(row["size"] or "endless"), row["constraint"]] for row in rows]
    for first, line, row in zip([rows[0]] * 3 + [rows[3]] * 3, lines, rows, strict=True):
        apart = np.array([a["elbo"] - b["elbo"] for a, b in zip(first["runs"], row["runs"], strict=True)])
        assert float(line[head.index("elbo_gain")]) == pytest.approx(apart.mean(), rel=1e-3)
        error = float(line[head.index("elbo_gain_standard_error")])
        assert error == pytest.approx(apart.std(ddof=1) / len(apart) ** 0.5, rel=1e-3)


def test_a_density_s_own_score_has_the_least_discrepancy_on_its_samples(results):
    """Of a density that is barely trained, so that the score of the data is another."""
    rows = {row["force"]: row for row in read_json(results / "bridge.json")["rows"]}
    assert list(rows) == ["none", "score of the data", "its own score", "U"]
    assert rows["its own score"]["hsd"] < min(rows[name]["hsd"] for name in ("none", "score of the data"))


def test_every_study_with_a_table_is_known_to_the_workflow():
    assert sorted(STUDY_TABLES.values()) == [name for name in names() if hasattr(get(name), "tabulate")]


def test_only_some_studies_have_a_table(there, tmp_path):
    with pytest.raises(ConfigurationError, match="'mixture' has no table.*\n.*comparison"):
        figure.tabulate(PARAMETERS, "mixture", tmp_path / "table.csv")
    with pytest.raises(ConfigurationError, match="no study 'mixtur'.*\n.*mixture"):
        figure.tabulate(PARAMETERS, "mixtur", tmp_path / "table.csv")


@pytest.mark.parametrize("kind", ["comparison", "mixture"])
def test_command_line_repeats_every_value(results, tmp_path, kind):
    """These two measure times, which stand beside the record and nowhere else."""
    assert main(["study", f"p/{kind}", "--spec", json.dumps(TINY[kind]), "--output", str(tmp_path / "record.json")]) == 0
    paths = (tmp_path / "record.json", tmp_path / "record.run.json", results / f"{kind}.json")
    record, beside, before = (read_json(path) for path in paths)
    assert beside["training"].keys() == before.pop("training").keys()
    assert beside["wall_seconds"] > 0
    assert not beside.keys() & record["provenance"].keys()
    assert {key: value for key, value in record.items() if key != "provenance"} == before


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("mixture", {"netwrok": NET}, "network"),
        ("mixture", {"hamiltonian": {"horizn": 1}}, "horizon"),
        ("mixture", {"mixture": {"weights": [0.5], "means": [[0.0, 0.0]], "sds": [1.0]}}, "mixture"),
        ("comparison", {"seed": 0, "seeeds": 1}, "seeds"),
        ("comparison", {"costs": {"dsm": 1.0}}, "hsm@form=scaled"),
        ("comparison", {"costs": {**COSTS, "ssm": 0}}, "ssm"),
    ],
)
def test_misspelt_keys_are_refused_with_the_nearest(kind, spec, words):
    with pytest.raises(ConfigurationError, match=words):
        run(kind, spec)


def test_command_line_says_what_is_wrong_with_a_specification(capsys, tmp_path):
    assert main(["study", "p/taylor", "--spec", "{", "--output", str(tmp_path / "x.json")]) == 2
    assert "not JSON" in capsys.readouterr().err
