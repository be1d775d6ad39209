"""table1.csv and its readable forms."""

import csv
import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from hamflow.pipeline.records import MetricsError
from hamflow.report import layout, paper
from hamflow.report.tables import COLUMNS, read_table, tabulate

DESIGN = "preset,dataset,conditional,method,label,sampler,nfe,metric,features,n_samples,seeds,mean,std,paper"


def values_of(metrics, line) -> list[float]:
    """The values behind a line, read from the JSON files alone."""
    files = (metrics / line.dataset / line.method).glob(f"seed*/{line.sampler}-nfe{line.nfe:g}.json")
    return [json.loads(file.read_text())["metrics"][line.metric]["value"] for file in files]


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


def cells_of(text) -> list[list[str]]:
    """The cells of the first table of a Markdown text."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_markdown_holds_every_method_of_ours_and_of_the_paper(metrics, tmp_path):
    frame = tabulate(metrics, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    cells = {label: texts for label, *texts in cells_of(text)[2:]}
    paper_rows = {paper.LABELS[method] for column in paper.TABLE.values() for method in column}
    assert set(cells) == paper_rows | set(frame["label"])
    best = frame.query("dataset == 'digits' and method == 'edm' and sampler == 'heun' and nfe == 35").iloc[0]
    assert cells["EDM"][0] == f"{layout.measurement(best['mean'], best['std'])} / 35"
    assert cells["EDM"][1] == layout.number(min(values_of(metrics, best)))
    assert cells["EDM"][4:] == ["1.98 / 35", "1.79 / 35", "2.39 / 79"]
    assert re.findall(r"lowest \w+", text.split("\n\n")[1]) == ["lowest FD", "lowest W2"]
    for fact in ("preset toy", "EfficientNet-Lite0", "n = 1797", "n = 898 for the bound", "3 seeds", "heun"):
        assert fact in text.split("\n\n")[0]


def test_one_seed_has_no_column_of_the_lowest_and_seeds_of_an_adaptive_sampler_have(tmp_path, make_result, write_result):
    for seed, nfe in enumerate((60, 73)):
        content = make_result(seed=seed, sampler="dopri5", nfe=nfe, value=3.0 - seed)
        write_result(tmp_path / "m", content, "dopri5-nfeauto")
        tabulate(tmp_path / "m", tmp_path)
        heads, _, *rows = cells_of((tmp_path / "table1.md").read_text())
        assert any("lowest" in head for head in heads) is (seed == 1)
    assert next(row for row in rows if row[0] == "EDM")[2] == "2.00"


def test_three_samplers_have_a_table_of_the_best_at_each_nfe_and_two_have_none(metrics, tmp_path, make_result, write_result):
    tabulate(metrics, tmp_path)
    assert "best of the samplers" not in (tmp_path / "table1.md").read_text()
    for seed in range(3):
        for nfe, value in ((9, 9.0), (35, 0.5)):
            write_result(metrics, make_result("digits", "edm", seed, "unipc", nfe, value=value))
    frame = tabulate(metrics, tmp_path)
    text = (tmp_path / "table1.md").read_text().split("best of the samplers")[1]
    (row,) = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("| EDM")]
    nine, thirty_five = (cell.strip() for cell in row.strip("|").split("|")[1:])
    heun = frame.query("dataset == 'digits' and method == 'edm' and sampler == 'heun' and nfe == 9").iloc[0]
    assert nine == f"{layout.measurement(heun['mean'], heun['std'])}, heun"
    assert thirty_five.endswith("unipc")


def test_likelihoods_have_a_table_of_their_own(metrics, tmp_path, make_result, write_result):
    bits = {"bits_per_dimension": {"value": 1.25, "standard_error": 0.01, "n": 500, "features": "held-out data"}}
    hsd = {"hsd@sigma=0.1": {"value": 1e-5, "standard_error": 1e-6, "n": 500, "features": "features"}}
    write_result(metrics, make_result("digits", "edm", sampler="none", nfe=0, metrics=bits | hsd), "hsd")
    tabulate(metrics, tmp_path)
    text = (tmp_path / "table1.md").read_text()
    assert re.search(r"\| EDM +\| +1\.250 ± 0\.010 \|", text)
    assert re.search(r"\| EDM +\| +10\.0 ± 1\.0 \|", text)
    assert "Digits: held-out data, n = 500" in text


def test_html_is_well_formed_and_holds_the_cells_of_the_markdown(metrics, tmp_path):
    tabulate(metrics, tmp_path)
    page = ElementTree.fromstring((tmp_path / "table1.html").read_text())
    found = [[cell.text for cell in row] for row in page.find("body/table/tbody")]
    assert found == cells_of((tmp_path / "table1.md").read_text())[2:]


HOSTILE = {
    "edm": r"[E] $x_1^2$ {a} \textbf{b} 50% & #1 ~ `c` ''d'' \"e\" f--g---h",
    "oscillation": "*HGF* | <b>i</b> &amp; __j__ \\| \\ https://k [l](m)",
}


def read_markdown(text) -> str:
    """What a reader of Markdown sees: a backslash keeps a character, an unkept one that means something is not there."""
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]<>|$~&#]", text)
    return re.sub(r"\\(.)", r"\1", text)


def read_latex(text) -> str:
    """What LaTeX prints, for the commands that stand for characters."""
    names = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textasciigrave": "`"}
    names |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    text = text.replace(r"\texttt{\char34}", '"')
    for pattern in (r"\\(\w+)\{\}", r"\\([&%$#_{}])", r"\{([\[\]*'])\}", r"(-)\{\}"):
        text = re.sub(pattern, lambda found: "\0" + names.get(found[1], found[1]), text)
    assert not re.search(r"(?<!\0)[\\&%$#_{}^~*\[\]`|<>]", text.replace("\0\\", "")), text
    return text.replace("\0", "")


@pytest.mark.parametrize("method", HOSTILE)
def test_a_label_is_the_same_text_in_every_format(tmp_path, make_result, write_result, method):
    label = HOSTILE[method]
    write_result(tmp_path / "m", make_result(method=method, label=label, dataset_label=label[::-1]))
    assert tabulate(tmp_path / "m", tmp_path)["label"].tolist() == [label]
    assert read_table(tmp_path / "table1.csv")["label"].tolist() == [label]
    page = ElementTree.fromstring((tmp_path / "table1.html").read_text())
    assert label in [cell.text for cell in page.iter("td")]
    assert label[::-1] in [cell.text for cell in page.iter("th")]
    lines = [line for line in (tmp_path / "table1.md").read_text().splitlines() if "1.00 / 35" in line]
    assert lines
    assert all(read_markdown(re.split(r"(?<!\\)(?:\\\\)*\|", line)[1].strip()) == label for line in lines)
    lines = [line for line in (tmp_path / "table1.tex").read_text().splitlines() if "1.00 / 35" in line]
    assert lines
    assert all(read_latex(re.split(r"(?<!\\) & ", line)[0]) == label for line in lines)
    assert not any(line.lstrip().startswith(("[", "*")) for line in lines)  # the line above ends in \\\\


def has_latex():
    """With the packages that a table needs."""
    styles = ["booktabs.sty", "adjustbox.sty"]
    return (
        bool(shutil.which("pdflatex"))
        and subprocess.run(["kpsewhich", *styles], capture_output=True).stdout.count(b".sty") == 2
    )


@pytest.mark.skipif(not has_latex(), reason="no LaTeX here: on Debian, texlive-latex-extra")
def test_latex_compiles_whatever_the_labels(tmp_path, make_result, write_result):
    labels = {
        **HOSTILE,
        "reflection": "*",
        "flow_matching": "[2em] and a star *",
        "ve_sde": "[",
        "vp_sde": "ends in a backslash \\",
    }
    for method, label in labels.items():
        write_result(tmp_path / "m", make_result(method=method, label=label, dataset_label=HOSTILE["edm"]))
    tabulate(tmp_path / "m", tmp_path)
    head = (
        "\\documentclass{article}\n\\usepackage{booktabs,adjustbox}\n\\begin{document}\n\\input{table1.tex}\n\\end{document}\n"
    )
    (tmp_path / "page.tex").write_text(head)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("pdftotext"):
        text = subprocess.run(["pdftotext", "-layout", "page.pdf", "-"], cwd=tmp_path, capture_output=True, text=True).stdout
        assert "[2em] and a star *" in text


def test_latex_is_balanced_and_every_line_has_the_tables_columns(metrics, tmp_path):
    tabulate(metrics, tmp_path)
    text = (tmp_path / "table1.tex").read_text()
    opened, closed = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed)
    assert re.search(r"(?<!\\)[_#]", re.sub(r"\\label{.*}", "", text)) is None
    for tabular in text.split("\\begin{tabular}{")[1:]:
        columns = len(tabular.split("}")[0])
        lines = [line for line in tabular.split("\\midrule", 1)[1].splitlines() if line.endswith(r"\\")]
        assert {line.count("&") + 1 for line in lines} == {columns}


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (0.10784, 0.0098, "0.1078 ± 0.0098"),
        (25.951, 1.23, "26.0 ± 1.2"),
        (1234.5, 67, "1234 ± 67"),
        (2.0, 0.0, "2 ± 0"),
        (0.00003, 0.000002, "3.00e-05 ± 2.0e-06"),
        (0.0231, np.nan, "0.0231"),
        (0.0, np.nan, "0.00"),
        (-0.00012, np.nan, "-1.2e-04"),
    ],
)
def test_measurements_are_written_to_the_figures_that_they_have(mean, std, text):
    assert layout.measurement(mean, std) == text


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
