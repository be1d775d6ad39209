"""The readable forms of Table 1: Markdown, HTML, LaTeX."""

import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from reading import cells_of, values_of

from hamflow.report import layout, paper
from hamflow.report.tables import read_table, tabulate


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
    for seed in range(3):  # nor does a method with one of its own make three
        write_result(metrics, make_result("digits", "gan", seed, "direct", 1, value=9.0))
    tabulate(metrics, tmp_path)
    assert "best of the samplers" not in (tmp_path / "table1.md").read_text()
    for seed in range(3):
        for nfe, value in ((9, 9.0), (35, 0.5)):
            write_result(metrics, make_result("digits", "edm", seed, "unipc", nfe, value=value))
    frame = tabulate(metrics, tmp_path)
    text = (tmp_path / "table1.md").read_text().split("best of the samplers")[1]
    (row,) = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("| EDM")]
    *_, nine, thirty_five = (cell.strip() for cell in row.strip("|").split("|")[1:])
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
