"""Table 1 in the paper's layout: methods as rows, data sets as columns, `value / NFE`; Markdown and LaTeX."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hamflow.metrics import features, suite
from hamflow.pipeline.records import UNSAMPLED
from hamflow.report import paper

Row = Mapping[str, str]
NONE = "–"
PREFERRED_SAMPLER = "heun"  # the paper's, to judge by its NFE; where it was not run, the first by name


STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; margin-bottom: 3em; border-top: 2px solid; border-bottom: 2px solid; }
caption { text-align: left; max-width: 60em; padding-bottom: .6em; }
th, td { padding: .2em .9em; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead tr:first-child th { text-align: center; font-weight: 600; }
thead tr:last-child th, tr.rule td { border-bottom: 1px solid; }
tr.rule td { border-bottom: 0; border-top: 1px solid; }
</style>"""
RULE = ' class="rule"'  # a line above the bound


@dataclass(frozen=True)
class Grid:
    """A table before it is Markdown, LaTeX or HTML.

    Fields: `groups` are (title, number of columns) above the heads (title, unit); each line begins with the
    method; `rule` is the number of lines above the bound's.
    """

    name: str
    caption: str
    groups: list[tuple[str, int]]
    heads: list[tuple[str, str]]
    lines: list[list[str]]
    rule: int


def markdown(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """The tables as Markdown; `titles` gives the data sets' labels."""
    return "\n".join(_markdown(grid) for grid in grids(rows, titles))


def latex(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """The tables as LaTeX, to be \\input."""
    return "% needs \\usepackage{booktabs,adjustbox}\n" + "\n".join(_latex(grid) for grid in grids(rows, titles))


def html(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """The tables as a page of their own."""
    tables = "\n".join(_html(grid) for grid in grids(rows, titles))
    head = f'<meta charset="utf-8"/><title>Table 1</title>{STYLE}'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{tables}</body></html>\n'


def grids(rows: Sequence[Row], titles: Mapping[str, str]) -> list[Grid]:
    """Table 1, then one table of all metrics for each data set, then one of the models' own metrics; each if it has lines."""
    own = [row for row in rows if row["sampler"] == UNSAMPLED]
    chosen = largest_budget([row for row in rows if row["sampler"] != UNSAMPLED])
    order = _images_first(chosen)
    tables = [_table1(chosen, titles, order)] if chosen else []
    tables += [_all_metrics(chosen, d, titles[d]) for d in order]
    order += [d for d in _images_first(own) if d not in order]  # without samples, or with none evaluated yet
    return [*tables, _discrepancies(own, titles, order)] if own else tables


def largest_budget(rows: Sequence[Row]) -> list[Row]:
    """Of each data set and method the lines at the preferred sampler's largest NFE; the bound's as it is."""
    chosen: list[Row] = []
    for dataset, method in dict.fromkeys((row["dataset"], row["method"]) for row in rows):
        of_method = [row for row in rows if (row["dataset"], row["method"]) == (dataset, method)]
        samplers = sorted({row["sampler"] for row in of_method})
        sampler = PREFERRED_SAMPLER if PREFERRED_SAMPLER in samplers else samplers[0]
        nfe = max(float(row["nfe"]) for row in of_method if row["sampler"] == sampler)
        chosen += [row for row in of_method if row["sampler"] == sampler and float(row["nfe"]) == nfe]
    return chosen


def number(value: float) -> str:
    """Three significant figures: 0.0231, 2.12, 1234, 4.2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def measurement(mean: str, std: str) -> str:
    """A mean with its standard deviation to two figures, 0.108 ± 0.010; a mean alone to three."""
    if not std:
        return number(float(mean))
    decimals = 0 if float(std) == 0 else max(0, 1 - math.floor(math.log10(float(std))))
    if decimals > 5:
        return f"{float(mean):.2e} ± {float(std):.1e}"
    return f"{float(mean):.{decimals}f} ± {float(std):.{decimals}f}"


def _images_first(rows: Sequence[Row]) -> list[str]:
    """The data sets: images, then points, each by name."""
    return [d for _, d in sorted({(row["features"] == features.POINTS, row["dataset"]) for row in rows})]


def _table1(rows: Sequence[Row], titles: Mapping[str, str], datasets: Sequence[str]) -> Grid:
    headlines = {d: suite.headline([row["metric"] for row in rows if row["dataset"] == d]) for d in datasets}
    methods = sorted({*paper.LABELS, *(row["method"] for row in rows)}, key=paper.order)
    lines = []
    for method in methods:
        ours = [_cell(rows, dataset, method, headlines[dataset]) for dataset in datasets]
        theirs = [_figure(column.get(method)) for column in paper.TABLE.values()]
        if {*ours, *theirs} != {NONE}:
            lines.append([_label(rows, method), *ours, *theirs])
    return Grid(
        name="table1",
        caption=_caption(rows, titles, headlines),
        groups=[("", 1), ("ours", len(datasets)), ("the paper", len(paper.TABLE))],
        heads=[("method", ""), *((titles[d], suite.about(headlines[d]).short) for d in datasets)]
        + [(title, "FID") for title in paper.COLUMNS.values()],
        lines=lines,
        rule=len(lines) - (methods[-1] == paper.BOUND),
    )


def _all_metrics(rows: Sequence[Row], dataset: str, title: str) -> Grid:
    mine = [row for row in rows if row["dataset"] == dataset]
    methods = sorted({row["method"] for row in mine}, key=paper.order)
    metrics = sorted({row["metric"] for row in mine})
    described = [suite.about(metric) for metric in metrics]
    exceptions = [_exception(about) for about in described if about.better != "lower"]
    return Grid(
        name=f"table1-{dataset}",
        caption=f"{title}, preset {mine[0]['preset']}: all metrics, value / NFE, lower is better"
        + (f", but for {', and '.join(exceptions)}" if exceptions else "")
        + f"; {_basis(mine)}.",
        groups=[("", 1), (title, len(metrics))],
        heads=[("method", ""), *((suite.about(metric).short, "") for metric in metrics)],
        lines=[[_label(mine, m), *(_cell(mine, dataset, m, metric) for metric in metrics)] for m in methods],
        rule=len(methods) - (methods[-1] == paper.BOUND),
    )


def _exception(about: suite.About) -> str:
    """Of "lower is better"."""
    return f"{about.short}, " + ("where higher is" if about.better == "higher" else f"which {about.better}")


def _discrepancies(rows: Sequence[Row], titles: Mapping[str, str], order: Sequence[str]) -> Grid:
    columns = [(d, m) for d in order for m in sorted({row["metric"] for row in rows if row["dataset"] == d})]
    methods = sorted({row["method"] for row in rows}, key=paper.order)
    counts, estimators = _counts(rows), ", ".join(sorted({row["features"] for row in rows}))
    error = "standard deviation over seeds" if any(int(row["seeds"]) > 1 for row in rows) else "standard error"
    return Grid(
        name="table1-hsd",
        caption=f"Hamiltonian score discrepancy, preset {rows[0]['preset']}: of the score that each model implies at a "
        f"noise level (sigma, data units), a coordinate, times 10^6; ± {error}; zero where the score is right. Lower bounds "
        f"by {estimators}, n = {counts}.",
        groups=[("", 1), ("10^6 HSD", len(columns))],
        heads=[("method", ""), *((titles[d], m.removeprefix("hsd@")) for d, m in columns)],
        lines=[[_label(rows, m), *(_million(rows, d, m, metric) for d, metric in columns)] for m in methods],
        rule=len(methods),
    )


def _million(rows: Sequence[Row], dataset: str, method: str, metric: str) -> str:
    for row in rows:
        if (row["dataset"], row["method"], row["metric"]) == (dataset, method, metric):
            return measurement(*(str(1e6 * float(row[key])) if row[key] else "" for key in ("mean", "std")))
    return NONE


def _caption(rows: Sequence[Row], titles: Mapping[str, str], headlines: Mapping[str, str]) -> str:
    samplers = sorted({row["sampler"] for row in rows if row["method"] != paper.BOUND})
    seeds = max(int(row["seeds"]) for row in rows)
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    bases: dict[str, list[str]] = {}
    for dataset, metric in headlines.items():
        mine = [row for row in rows if (row["dataset"], row["metric"]) == (dataset, metric)]
        bases.setdefault(f"{suite.about(metric).title}, {_basis(mine)}", []).append(titles[dataset])
    comparable = any(row["paper"] for row in rows)
    return (
        f"Table 1, preset {rows[0]['preset']}: value / NFE, lower is better. "
        f"Ours: largest NFE of {' and '.join(samplers) or 'no sampler'}, {spread}. "
        + "".join(f"{', '.join(names)}: {basis}. " for basis, names in bases.items())
        + "The paper (arXiv:2410.20470): FID with features Inception-v3, n = 50000"
        + ("." if comparable else "; other data and another network than ours, so that no value compares.")
    )


def _basis(rows: Sequence[Row]) -> str:
    """The feature network and the sample counts behind figures."""
    networks = ", ".join(sorted({features.label(row["features"]) for row in rows}))
    drawn = _counts([row for row in rows if row["method"] != paper.BOUND])
    bound = _counts([row for row in rows if row["method"] == paper.BOUND])
    counts = [f"n = {drawn}"] * bool(drawn) + [f"n = {bound} for the bound"] * (bound not in ("", drawn))
    return ", ".join([f"features {networks}", *counts])


def _counts(rows: Sequence[Row]) -> str:
    counts = sorted({int(row["n_samples"]) for row in rows})
    return "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _cell(rows: Sequence[Row], dataset: str, method: str, metric: str) -> str:
    for row in rows:
        if (row["dataset"], row["method"], row["metric"]) == (dataset, method, metric):
            cost = f" / {row['nfe']}" if method != paper.BOUND else ""
            return measurement(row["mean"], row["std"]) + cost
    return NONE


def _figure(figure: paper.Figure | None) -> str:
    return NONE if figure is None else f"{figure.fid:.2f} / {figure.nfe}"


def _label(rows: Sequence[Row], method: str) -> str:
    ours = next((row["label"] for row in rows if row["method"] == method), None)
    return ours or paper.LABELS.get(method, paper.BOUND_LABEL)


def _markdown(grid: Grid) -> str:
    groups = [title for title, count in grid.groups for _ in range(count)]
    heads = [
        "<br>".join(part for part in (group if len(grid.groups) > 2 else "", *head) if part)
        for group, head in zip(groups, grid.heads, strict=True)
    ]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *grid.lines]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"**{grid.caption}**\n\n{table}\n"


def _html(grid: Grid) -> str:
    groups = "".join(f'<th colspan="{count}">{escape(title)}</th>' for title, count in grid.groups)
    heads = "".join(f"<th>{'<br/>'.join(escape(part) for part in head if part)}</th>" for head in grid.heads)
    lines = []
    for number, line in enumerate(grid.lines):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in line)
        lines.append(f"<tr{RULE if number == grid.rule else ''}>{cells}</tr>")
    body = "\n".join(lines)
    top = f"<caption>{escape(grid.caption)}</caption>\n<thead><tr>{groups}</tr><tr>{heads}</tr></thead>"
    return f"<table>{top}\n<tbody>{body}</tbody></table>"


def _latex(grid: Grid) -> str:
    spans, rules, start = [], [], 1
    for title, count in grid.groups:
        spans.append(f"\\multicolumn{{{count}}}{{c}}{{{_escape(title)}}}" if title else "")
        if title:
            rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    body = [_latex_line(line) for line in grid.lines]
    if grid.rule < len(body):
        body.insert(grid.rule, "\\midrule")
    units = [_latex_line([unit for _, unit in grid.heads])] if any(unit for _, unit in grid.heads) else []
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escape(grid.caption)}}}",
        f"\\label{{tab:{grid.name}}}",
        "\\begin{adjustbox}{max width=\\linewidth}",
        f"\\begin{{tabular}}{{l{'r' * (len(grid.heads) - 1)}}}",
        "\\toprule",
        " & ".join(spans) + r" \\",
        " ".join(rules),
        _latex_line([title for title, _ in grid.heads]),
        *units,
        "\\midrule",
        *body,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(_escape(cell) for cell in cells) + r" \\"


def _escape(text: str) -> str:
    for plain, tex in (("\\", "\\textbackslash "), *((c, f"\\{c}") for c in "&%$#_{}")):
        text = text.replace(plain, tex)
    return text.replace("±", "$\\pm$").replace("–", "--").replace("~", "\\textasciitilde ").replace("^", "\\^{}")
