"""Table 1 in the paper's layout: methods as rows, data sets as columns, `value / NFE`; Markdown, LaTeX and HTML."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

import pandas as pd

from hamflow.metrics import features, suite
from hamflow.pipeline.paths import BOUND, HSD
from hamflow.pipeline.records import UNSAMPLED
from hamflow.report import better, paper

NONE = "–"
PREFERRED_SAMPLER = "heun"  # the paper's, to judge by its NFE; where it was not run, the first by name
COMPARED = 3  # samplers of a method, from which on a table says which is the best at each NFE
MILLION = 1e6  # discrepancies are small
Lowest = Mapping[tuple[str, str, str, float, str], float]  # by (data set, method, sampler, NFE, metric)
NO_LOWEST: Lowest = MappingProxyType({})

STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; margin-bottom: 3em; border-top: 2px solid; border-bottom: 2px solid; }
caption { text-align: left; max-width: 60em; padding-bottom: .6em; }
th, td { padding: .2em .9em; text-align: right; white-space: pre; font-variant-numeric: tabular-nums; font-weight: normal; }
th:first-child, td:first-child { text-align: left; }
thead th[colspan] { text-align: center; font-weight: 600; }
thead tr:last-child th { border-bottom: 1px solid; }
table.bound tbody tr:last-child td { border-top: 1px solid; }
</style>"""

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|$~&#])")
LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
LATEX |= {character: f"{{{character}}}" for character in "[]*'"}  # a line may begin with the first and the third; no ''
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\texttt{\char34}"}
LATEX |= {"±": r"$\pm$", "–": r"\textendash{}"}


@dataclass(frozen=True)
class Grid:
    """A table before it is Markdown, LaTeX or HTML.

    Fields:
        name, caption: of the table.
        cells: texts; each line begins with the label of a method. The columns are (group, title, unit).
        bound: whether the last line is the bound's, below a rule.
    """

    name: str
    caption: str
    cells: pd.DataFrame
    bound: bool


def markdown(tables: Sequence[Grid]) -> str:
    """The tables as Markdown, in which a backslash keeps every character what it is."""
    return "\n".join(_markdown(table) for table in tables)


def latex(tables: Sequence[Grid]) -> str:
    """The tables as LaTeX, to be \\input."""
    return "% needs \\usepackage{booktabs,adjustbox}\n" + "\n".join(_latex(table) for table in tables)


def html(tables: Sequence[Grid], title: str = "Table 1") -> str:
    """The tables as a page of their own."""
    head = f'<meta charset="utf-8"/><title>{escape(title)}</title>{STYLE}'
    body = "\n".join(_html(table) for table in tables)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{body}</body></html>\n'


def grids(
    frame: pd.DataFrame, titles: Mapping[str, str], best: Collection[tuple[str, str, str]] = (), lowest: Lowest = NO_LOWEST
) -> list[Grid]:
    """Table 1, then one table of all metrics for each data set, then one of the models' own metrics; each if it has lines.

    Args:
        frame: the lines of table1.csv.
        titles: the labels of the data sets.
        best: (data set, method, metric) that are marked, see `hamflow.report.better`.
        lowest: the smallest values over seeds, a column of their own beside the headline metric of a data set.
    """
    own, drawn = frame[frame["sampler"] == UNSAMPLED], (frame["sampler"] != UNSAMPLED) & (frame["method"] != BOUND)
    chosen = largest_budget(frame[frame["sampler"] != UNSAMPLED])
    order = _images_first(chosen)
    tables = [_table1(chosen, titles, order, best, lowest)] if order else []
    tables += [_all_metrics(chosen[chosen["dataset"] == dataset], titles[dataset], best) for dataset in order]
    if frame[drawn].groupby("method")["sampler"].nunique().max() >= COMPARED:
        tables += [_best_samplers(frame[drawn & (frame["dataset"] == dataset)], titles[dataset]) for dataset in order]
    order += [d for d in _images_first(own) if d not in order]  # without samples, or with none evaluated yet
    score = own["metric"].str.startswith(f"{HSD}@")
    kinds = ((_discrepancies, own[score]), (_likelihoods, own[~score]))
    return [*tables, *(kind(lines, titles, order) for kind, lines in kinds if not lines.empty)]


def largest_budget(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each data set and method the lines at the preferred sampler's largest NFE; the bound's as it is."""
    place = ["dataset", "method"]
    preference = frame.assign(other=frame["sampler"] != PREFERRED_SAMPLER).sort_values(["other", "sampler"], kind="stable")
    frame = frame[frame["sampler"] == preference.groupby(place)["sampler"].transform("first").sort_index()]
    return frame[frame["nfe"] == frame.groupby(place)["nfe"].transform("max")]


def number(value: float) -> str:
    """Three significant figures: 0.0231, 2.12, 1234, 4.2e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def measurement(mean: float, std: float) -> str:
    """A mean with its standard deviation to two figures, 0.108 ± 0.010; a mean alone, whose std is nan, to three."""
    if math.isnan(std):
        return number(mean)
    decimals = 0 if std == 0 else max(0, 1 - math.floor(math.log10(std)))
    return f"{mean:.2e} ± {std:.1e}" if decimals > 5 else f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def _images_first(frame: pd.DataFrame) -> list[str]:
    """The data sets: images, then points, each by name."""
    pairs = zip(frame["features"] == features.POINTS, frame["dataset"], strict=True)
    return [dataset for _, dataset in sorted(set(pairs))]


def _table1(frame: pd.DataFrame, titles: Mapping[str, str], datasets: Sequence[str], best: Collection, lowest: Lowest) -> Grid:
    heads = {d: suite.headline(set(frame.loc[frame["dataset"] == d, "metric"])) for d in datasets}
    ours = []
    for d, metric in heads.items():
        short = suite.about(metric).short
        ours.append(("ours", titles[d], short, _cell(frame, d, metric, best)))
        if any((key[0], key[-1]) == (d, metric) for key in lowest):
            ours.append(("ours", titles[d], f"lowest {short}", _lowest(frame, d, metric, lowest)))
    theirs = [("the paper", title, "FID", _published(paper.TABLE[key])) for key, title in paper.COLUMNS.items()]
    methods = [*paper.LABELS, *frame["method"]]
    marked = any((d, metric) == (dataset, name) for dataset, _, name in best for d, metric in heads.items())
    caption = _caption(frame, titles, heads) + (f" {better.MEANING}." if marked else "")
    return _grid("table1", caption, [*ours, *theirs], methods, frame)


def _all_metrics(frame: pd.DataFrame, title: str, best: Collection) -> Grid:
    dataset, preset = frame.iloc[0][["dataset", "preset"]]
    metrics = {metric: suite.about(metric) for metric in sorted(set(frame["metric"]))}
    exceptions = [_exception(about) for about in metrics.values() if about.better != "lower"]
    caption = f"{title}, preset {preset}: all metrics, value / NFE, lower is better"
    caption += f", but for {', and '.join(exceptions)}" if exceptions else ""
    caption += f"; {better.MEANING}" if any(dataset == marked for marked, *_ in best) else ""
    columns = [(title, about.short, "", _cell(frame, dataset, metric, best)) for metric, about in metrics.items()]
    return _grid(f"table1-{dataset}", f"{caption}; {_basis(frame)}.", columns, frame["method"], frame)


def _best_samplers(frame: pd.DataFrame, title: str) -> Grid:
    """Of each method at each NFE the sampler of the lowest headline metric; adaptive ones stand at the NFE that they spent."""
    metric = suite.headline(set(frame["metric"]))
    frame = frame[frame["metric"] == metric].sort_values(["mean", "sampler"], kind="stable")
    columns: list[tuple[str, str, str, Cell]] = []
    for nfe, lines in frame.groupby("nfe"):
        best = lines.groupby("method").first()

        def cell(method: str, best: pd.DataFrame = best) -> str:
            if method not in best.index:
                return NONE
            return f"{measurement(best.loc[method, 'mean'], best.loc[method, 'std'])}, {best.loc[method, 'sampler']}"

        columns.append((f"{title}, {suite.about(metric).short}", f"{nfe:g} NFE", "", cell))
    caption = f"{title}, preset {frame.iloc[0]['preset']}: the best of the samplers at each NFE, chosen by the values shown; "
    caption += f"{suite.about(metric).title}, lower is better; {_basis(frame)}."
    return _grid(f"table1-{frame.iloc[0]['dataset']}-samplers", caption, columns, frame["method"], frame)


def _exception(about: suite.About) -> str:
    """Of "lower is better"."""
    return f"{about.short}, " + ("where higher is" if about.better == "higher" else f"which {about.better}")


def _discrepancies(frame: pd.DataFrame, titles: Mapping[str, str], order: Sequence[str]) -> Grid:
    columns = []
    for dataset in order:
        for metric in sorted(set(frame.loc[frame["dataset"] == dataset, "metric"])):
            cell = _cell(frame, dataset, metric, scale=MILLION, cost=False)
            columns.append(("10^6 HSD", titles[dataset], metric.removeprefix(f"{HSD}@"), cell))
    error = "standard deviation over seeds" if (frame["seeds"] > 1).any() else "standard error"
    caption = (
        f"Hamiltonian score discrepancy, preset {frame.iloc[0]['preset']}: of the score that each model implies at a "
        f"noise level (sigma, data units), a coordinate, times 10^6; ± {error}; zero where the score is right. Lower bounds "
        f"by {', '.join(sorted(set(frame['features'])))}, n = {_counts(frame)}."
    )
    return _grid("table1-hsd", caption, columns, frame["method"], frame)


def _likelihoods(frame: pd.DataFrame, titles: Mapping[str, str], order: Sequence[str]) -> Grid:
    columns, data = [], []
    for dataset in order:
        mine = frame[frame["dataset"] == dataset]
        for metric in sorted(set(mine["metric"])):
            about = suite.about(metric)
            columns.append((titles[dataset], about.unit, "", _cell(frame, dataset, metric, cost=False)))
            data.append(f"{titles[dataset]}: {', '.join(sorted(set(mine['features'])))}, n = {_counts(mine)}")
    error = "standard deviation over seeds" if (frame["seeds"] > 1).any() else "standard error"
    caption = (
        f"Negative log-likelihood that each model gives to data, preset {frame.iloc[0]['preset']}, by the instantaneous change "
        f"of variables; images dequantised, an upper bound; lower is better; ± {error}. {'; '.join(data)}."
    )
    return _grid("table1-likelihood", caption, columns, frame["method"], frame)


Cell = Callable[[str], str]  # of a method


def _grid(name: str, caption: str, columns: Sequence[tuple[str, str, str, Cell]], methods: Any, frame: pd.DataFrame) -> Grid:
    """The methods that have a cell, in the order of the paper."""
    labels = {BOUND: paper.BOUND_LABEL, **paper.LABELS, **dict(zip(frame["method"], frame["label"], strict=True))}
    lines = {m: [cell(m) for *_, cell in columns] for m in sorted(set(methods), key=paper.order)}
    lines = {method: cells for method, cells in lines.items() if set(cells) != {NONE}}
    head = pd.MultiIndex.from_tuples([("", "method", ""), *((group, title, unit) for group, title, unit, _ in columns)])
    head = head if any(head.get_level_values(2)) else head.droplevel(2)  # no units
    cells = pd.DataFrame([[labels[method], *texts] for method, texts in lines.items()], columns=head)
    return Grid(name, caption, cells, BOUND in lines)


def _cell(frame: pd.DataFrame, dataset: str, metric: str, best: Collection = (), scale: float = 1, cost: bool = True) -> Cell:
    lines = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)].set_index("method")

    def cell(method: str) -> str:
        if method not in lines.index:
            return NONE
        line = lines.loc[method]
        spent = f" / {line['nfe']:g}" if cost and method != BOUND else ""
        mark = better.MARK if (dataset, method, metric) in best else ""
        return measurement(scale * line["mean"], scale * line["std"]) + mark + spent

    return cell


def _lowest(frame: pd.DataFrame, dataset: str, metric: str, lowest: Lowest) -> Cell:
    lines = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)].set_index("method")

    def cell(method: str) -> str:
        sampler, nfe = lines.loc[method, ["sampler", "nfe"]] if method in lines.index else ("", 0)
        return number(lowest[key]) if (key := (dataset, method, sampler, nfe, metric)) in lowest else NONE

    return cell


def _published(column: Mapping[str, paper.Figure]) -> Cell:
    return lambda method: f"{column[method].fid:.2f} / {column[method].nfe}" if method in column else NONE


def _caption(frame: pd.DataFrame, titles: Mapping[str, str], headlines: Mapping[str, str]) -> str:
    samplers = sorted(set(frame.loc[frame["method"] != BOUND, "sampler"]))
    seeds = frame["seeds"].max()
    bases: dict[str, list[str]] = {}
    for dataset, metric in headlines.items():
        mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
        bases.setdefault(f"{suite.about(metric).title}, {_basis(mine)}", []).append(titles[dataset])
    return (
        f"Table 1, preset {frame.iloc[0]['preset']}: value / NFE, lower is better. "
        f"Ours: largest NFE of {' and '.join(samplers) or 'no sampler'}, "
        + (f"mean ± standard deviation over {seeds} seeds. " if seeds > 1 else "one seed. ")
        + "".join(f"{', '.join(names)}: {basis}. " for basis, names in bases.items())
        + "The paper (arXiv:2410.20470): FID with features Inception-v3, n = 50000"
        + ("." if frame["paper"].notna().any() else "; other data and another network than ours, so that no value compares.")
    )


def _basis(frame: pd.DataFrame) -> str:
    """The feature network, the sample counts and, where there are classes, the law of labels behind figures."""
    networks = ", ".join(sorted({features.label(name) for name in frame["features"]}))
    drawn, bound = (_counts(frame[(frame["method"] == BOUND) == real]) for real in (False, True))
    counts = [f"n = {drawn}"] * bool(drawn) + [f"n = {bound} for the bound"] * (bound not in ("", drawn))
    labels = ["labels as in the training data where nothing else is said"] * bool(frame["conditional"].any())
    return ", ".join([f"features {networks}", *counts, *labels])


def _counts(frame: pd.DataFrame) -> str:
    low, high = frame["n_samples"].min(), frame["n_samples"].max()
    return "" if frame.empty else f"{low}" if low == high else f"{low} to {high}"


def _map(table: Grid, change: Callable[[str], str]) -> pd.DataFrame:
    """The cells, heads included, with every text changed."""
    cells = table.cells.map(change)
    cells.columns = pd.MultiIndex.from_tuples([tuple(map(change, head)) for head in table.cells.columns])
    return cells


def _markdown(table: Grid) -> str:
    cells = _map(table, lambda text: MARKDOWN.sub(r"\\\1", text))
    groups = len(set(table.cells.columns.get_level_values(0))) > 2
    heads = ["<br>".join(part for part in (head if groups else head[1:]) if part) for head in cells.columns]
    sides = ["left", *["right"] * (len(heads) - 1)]
    text = cells.to_markdown(index=False, headers=heads, colalign=sides, disable_numparse=True)
    caption = MARKDOWN.sub(r"\\\1", table.caption)
    return f"**{caption}**\n\n{text}\n"


def _latex(table: Grid) -> str:
    cells = _map(table, _escape_latex)
    sides = "l" + "r" * (len(cells.columns) - 1)
    text = cells.style.hide(axis="index").to_latex(hrules=True, multicol_align="c", column_format=sides)
    if table.bound:
        *lines, bound, bottom, end = text.splitlines()
        text = "\n".join([*lines, "\\midrule", bound, bottom, end, ""])
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_escape_latex(table.caption)}}}\n\\label{{tab:{table.name}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\linewidth}}\n{text}\\end{{adjustbox}}\n\\end{{table}}\n"
    )


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text).replace("--", "-{}-").replace("--", "-{}-")


def _html(table: Grid) -> str:
    with pd.option_context("display.max_colwidth", None):
        text = table.cells.to_html(index=False, border=0, classes="bound" if table.bound else None)
    head, tag, rest = text.partition(">")
    return f"{head}{tag}<caption>{escape(table.caption)}</caption>{rest}"
