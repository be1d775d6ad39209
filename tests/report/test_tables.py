"""table1.csv and its readable forms."""

import csv
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from reading import cells_of, values_of

from hamflow.pipeline.records import MetricsError
from hamflow.report import paper
from hamflow.report.tables import COLUMNS, read_table, tabulate

DESIGN = "preset,dataset,conditional,method,label,sampler,nfe,metric,features,n_samples,seeds,mean,std,paper"


def test_the_columns_are_those_of_the_contract(metrics, tmp_path):
    tabulate(metrics, tmp_path / "out")
    assert (tmp_path / "out" / "table1.csv").read_text().splitlines()[0] == DESIGN == ",".join(COLUMNS)


def test_every_line_is_the_mean_and_standard_deviation_over_its_seeds(metrics, tmp_path):
    frame = tabulate(metrics, tmp_path / "out")
    assert len(frame) == 2 * 3 * (1 + 2) + (1 + 2)  # methods x settings x metrics, and the bounds
    for line in frame.itertuples():
        values = values_of(metrics, line)
        assert line.seeds == len(values)
        assert line.mean == pytest.approx(np.mean(values), rel=1e-15)
        spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
        assert line.std == pytest.approx(spread, rel=1e-13, nan_ok=True)


def test_the_bytes_depend_neither_on_the_order_nor_on_the_folder(metrics, tmp_path):
    tabulate(metrics, tmp_path / "a")
    tabulate(shutil.copytree(metrics, tmp_path / "elsewhere"), tmp_path / "b")
    tabulate(sorted({path.parent for path in metrics.rglob("*.json")}, reverse=True), tmp_path / "c")
    for name in ("table1.csv", "table1.md", "table1.tex", "table1.html"):
        assert len({(tmp_path / folder / name).read_bytes() for folder in "abc"}) == 1


def test_lines_are_sorted_and_the_bound_comes_last_of_its_data_set(metrics, tmp_path):
    frame = tabulate(metrics, tmp_path)
    keys = [(line.dataset, paper.order(line.method), line.sampler, line.nfe, line.metric) for line in frame.itertuples()]
    assert keys == sorted(keys)
    assert frame[frame["dataset"] == "digits"]["method"].iloc[-1] == "data"


def test_what_is_written_is_read_back(metrics, tmp_path):
    frame = tabulate(metrics, tmp_path)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table1.csv"), frame, check_exact=True)


@pytest.mark.parametrize("key", paper.TABLE, ids=str)
def test_the_papers_figures_join_only_at_their_own_nfe_and_metric(key):
    for method, (fid, nfe) in paper.TABLE[key].items():
        assert paper.published(*key, method, nfe, "fid") == fid
        assert paper.published(*key, method, nfe + 1, "fid") is None
        assert paper.published(*key, method, nfe, "fd_enlite0") is None
        assert paper.published("digits", False, method, nfe, "fid") is None


def test_the_papers_table_is_that_of_the_specification():
    """Table 1 of the paper, as text; the conditional rows are those with fewer methods."""
    text = {
        ("cifar10", False): "2.92/1 2.10/147 2.48/104 3.77/35 3.01/35 1.98/35 2.73/8 2.12/35",
        ("cifar10", True): "3.11/35 2.48/35 1.79/35 1.97/35",
        ("ffhq64", False): "25.95/79 3.39/79 2.39/79 2.86/79",
    }
    ours = {key: " ".join(f"{f.fid:.2f}/{f.nfe}" for f in column.values()) for key, column in paper.TABLE.items()}
    assert ours == text
    assert all(list(column) == sorted(column, key=paper.order) for column in paper.TABLE.values())


@pytest.mark.parametrize(("dataset", "conditional", "fid"), [("cifar10", False, 2.12), ("cifar10_conditional", True, 1.97)])
def test_the_paper_column_of_the_csv(tmp_path, make_result, write_result, dataset, conditional, fid):
    metric = {"fid": {"value": 3.0, "n": 50000, "features": "inception"}}
    for nfe in (17, 35):
        content = make_result(dataset, "oscillation", nfe=nfe, conditional=conditional, metrics=metric)
        write_result(tmp_path / "metrics", content)
    tabulate(tmp_path / "metrics", tmp_path)
    lines = list(csv.DictReader((tmp_path / "table1.csv").open()))
    assert [(line["nfe"], line["paper"]) for line in lines] == [("17", ""), ("35", str(fid))]
    text = (tmp_path / "table1.md").read_text()
    assert "no value compares" not in text
    assert ("labels as in the training data" in text) == conditional


def test_seeds_of_an_adaptive_sampler_share_a_line_though_their_nfe_differ(tmp_path, make_result, write_result):
    for seed, nfe in enumerate((60, 73)):
        write_result(tmp_path / "m", make_result(seed=seed, sampler="dopri5", nfe=nfe), "dopri5-nfeauto")
    (line,) = tabulate(tmp_path / "m", tmp_path).itertuples()
    assert (line.nfe, line.seeds) == (66.5, 2)


def test_no_metrics_is_explained(tmp_path):
    with pytest.raises(MetricsError, match="no metrics"):
        tabulate(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_contradictions_are_explained_and_nothing_is_written(metrics, tmp_path, make_result, write_result):
    write_result(metrics, make_result(seed=1, label="Another"))
    with pytest.raises(MetricsError, match="two labels"):
        tabulate(metrics, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(MetricsError, match="no table"):
        read_table(tmp_path / "absent.csv")
    with open(tmp_path / "other.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], ["1", "2"]])
    with pytest.raises(MetricsError, match="not a table1"):
        read_table(tmp_path / "other.csv")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\xff")
    (tmp_path / "large.csv").write_text('"' + "x" * 200_000 + '"\n')
    for path in (tmp_path, tmp_path / "image.csv", tmp_path / "large.csv"):
        with pytest.raises(MetricsError, match="not a table1"):
            read_table(path)


@pytest.mark.parametrize("column", ["nfe", "n_samples", "seeds", "mean", "std", "conditional", "paper"])
@pytest.mark.parametrize("text", ["abc", "inf"])
def test_a_table_without_a_number_in_its_place_is_refused(metrics, tmp_path, column, text):
    tabulate(metrics, tmp_path)
    lines = list(csv.DictReader((tmp_path / "table1.csv").open()))
    with open(tmp_path / "spoilt.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([lines[0], lines[1] | {column: text}])
    with pytest.raises(MetricsError, match="not a table1"):
        read_table(tmp_path / "spoilt.csv")


def test_metrics_none_of_which_has_a_value_are_explained(tmp_path, make_result, write_result):
    write_result(tmp_path / "m", make_result(value=None))
    with pytest.raises(MetricsError, match="no metric has a value"):
        tabulate(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_discrepancies_alone_are_a_table(metrics, tmp_path, make_result, write_result):
    """`hamflow score model` may come before any sample is evaluated; of one data set, or of all."""
    own = {"hsd@sigma=0.3": {"value": 2e-4, "standard_error": 3e-5, "n": 500, "features": "critic"}}
    lone = write_result(tmp_path / "lone", make_result("cats", sampler="none", nfe=0, metrics=own), "hsd")
    assert tabulate(tmp_path / "lone", tmp_path / "a")["mean"].tolist() == [2e-4]
    assert cells_of((tmp_path / "a" / "table1.md").read_text())[2:] == [["EDM", "200 ± 30"]]
    for suffix, cell in (("html", "<td>200 ± 30</td>"), ("tex", "EDM & 200 $\\pm$ 30")):
        assert cell in (tmp_path / "a" / f"table1.{suffix}").read_text()
    tabulate([metrics, lone.parent], tmp_path / "b")
    assert "200 ± 30" in (tmp_path / "b" / "table1.md").read_text().split("Hamiltonian score discrepancy")[1]


def test_discrepancies_of_models_are_lines_with_their_own_error_and_a_table_of_their_own(
    metrics, tmp_path, make_result, write_result
):
    for method, value, error in (("edm", 2e-4, 3e-5), ("oscillation", -1e-5, 2e-5)):
        own = {"hsd@sigma=0.3": {"value": value, "standard_error": error, "n": 500, "features": "critic"}}
        write_result(metrics, make_result("digits", method, sampler="none", nfe=0, metrics=own), "hsd")
    frame = tabulate(metrics, tmp_path / "a")
    own = frame[frame["sampler"] == "none"]
    lines = own[["method", "metric", "mean", "std", "n_samples"]].itertuples(index=False, name=None)
    assert list(lines) == [
        ("edm", "hsd@sigma=0.3", 2e-4, 3e-5, 500),
        ("oscillation", "hsd@sigma=0.3", -1e-5, 2e-5, 500),
    ]
    text = (tmp_path / "a" / "table1.md").read_text()
    table = text[text.index("**Hamiltonian score discrepancy") :]
    assert cells_of(table)[2:] == [["EDM", "200 ± 30"], ["Oscillation HGF", "-10 ± 20"]]
    for path in metrics.rglob("hsd.json"):
        path.unlink()
    without = tabulate(metrics, tmp_path / "b")
    pd.testing.assert_frame_equal(without, frame[frame["sampler"] != "none"].reset_index(drop=True))
    assert text.startswith((tmp_path / "b" / "table1.md").read_text())


def test_better_is_marked_only_where_every_interval_excludes_zero(tmp_path, make_result, write_result):
    """Resamples around values that differ by 0.5: with deviation 0.1 of the difference that is clear, with 1 it is not."""
    rng = np.random.default_rng(4)
    for name, deviation in (("clear", 0.1), ("unclear", 1.0)):
        shared = rng.standard_normal(400)  # of the samples, which the methods share: it cancels in the difference
        for method, value in (("edm", 1.0), ("oscillation", 1.5)):
            for seed in (0, 1):
                content = make_result("digits", method, seed, value=value)
                drawn = value + 5 * shared + deviation * rng.standard_normal(400) / 2**0.5
                content["metrics"]["fd_enlite0"]["resampled"] = drawn.tolist()
                write_result(tmp_path / name, content)
        tabulate(tmp_path / name, tmp_path / f"{name}-out")
    clear, unclear = ((tmp_path / f"{name}-out" / "table1.md").read_text() for name in ("clear", "unclear"))
    assert re.search(r"EDM [^\n]*\\\* / 35", clear)
    assert not re.search(r"Oscillation HGF [^\n]*\\\* / 35", clear)
    assert "paired bootstrap" in clear
    assert "paired bootstrap" not in unclear
    assert "\\*" not in unclear


def test_nothing_is_marked_where_a_method_was_not_resampled(tmp_path, make_result, write_result):
    for method, value in (("edm", 1.0), ("oscillation", 1.5)):
        content = make_result("digits", method, 0, value=value)
        if method == "edm":
            content["metrics"]["fd_enlite0"]["resampled"] = [value] * 10
        write_result(tmp_path / "metrics", content)
    tabulate(tmp_path / "metrics", tmp_path / "out")
    assert "paired bootstrap" not in (tmp_path / "out" / "table1.md").read_text()
