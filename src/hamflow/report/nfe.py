"""Distance to the data against the number of network evaluations: what a sampler buys."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hamflow.metrics import features, suite
from hamflow.pipeline.records import UNSAMPLED, MetricsError
from hamflow.report import labels, paper, style
from hamflow.report.tables import Row, read_table

PANELS_A_ROW = 2
BOUND_LINE: dict[str, Any] = {"color": style.colour(paper.BOUND), "linestyle": (0, (4, 3)), "linewidth": 1.1}


def plot_nfe(table: str | Path, output: str | Path, datasets: Sequence[str] | None = None, metric: str | None = None) -> None:
    """A panel a data set: one colour a method, one dash a sampler, the bound as a horizontal line; log axes.

    Bars are the standard deviation over the seeds, where there are several.

    Args:
        table: table1.csv.
        output: the .png; a .pdf beside it.
        datasets: those to show; all by default.
        metric: the metric to show; by default the one that speaks for each data set (Fréchet distance or W2).
    Raises:
        MetricsError: no such table, data set or metric; no metrics of samples at all.
    """
    rows = [row for row in read_table(Path(table)) if row["sampler"] != UNSAMPLED]
    if not rows:
        raise MetricsError(f"{table} has no metrics of samples", fix="evaluate some first: `hamflow evaluate --help`")
    known = list(dict.fromkeys(row["dataset"] for row in rows))
    for name in datasets or []:
        if name not in known:
            raise MetricsError(f"{table} has no data set '{name}'", fix=f"It has {', '.join(known)}.")
    chosen = list(datasets or known)
    across = min(PANELS_A_ROW, len(chosen))
    down = -(-len(chosen) // across)
    with style.drawing(output, 3.7 * across + (1.2 if across == 1 else 0), 2.9 * down + 0.9) as figure:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, dataset in zip(panels, chosen, strict=False):
            _panel(axes, [row for row in rows if row["dataset"] == dataset], metric)
        for axes in panels[len(chosen) :]:
            axes.set_axis_off()
        shown = [row for row in rows if row["dataset"] in chosen]
        seeds = max(int(row["seeds"]) for row in shown)
        bars = f"; bars: standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
        figure.suptitle(f"Preset {rows[0]['preset']}{bars}", fontsize=10)
        figure.legend(handles=_legend(shown), loc="outside lower center", ncols=2, handlelength=3.5)


def _panel(axes: Any, rows: Sequence[Row], metric: str | None) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    having = {row["metric"] for row in rows}
    metric = metric or suite.headline(having)
    if metric not in having:
        raise MetricsError(
            f"data set '{rows[0]['dataset']}' has no metric '{metric}'",
            fix=f"It has {', '.join(sorted(having))}.",
        )
    rows = [row for row in rows if row["metric"] == metric]
    drawn = [row for row in rows if row["method"] != paper.BOUND]
    for method, sampler in dict.fromkeys((row["method"], row["sampler"]) for row in drawn):
        _curve(axes, [row for row in drawn if (row["method"], row["sampler"]) == (method, sampler)])
    for row in rows:
        if row["method"] == paper.BOUND:
            axes.axhline(float(row["mean"]), **BOUND_LINE)
    budgets = sorted({float(row["nfe"]) for row in drawn})
    axes.set_xscale("log")
    if all(float(row["mean"]) > 0 for row in rows):  # an unbiased estimate may be negative
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    style.plain_ticks(axes)
    axes.xaxis.set_minor_formatter(NullFormatter())
    first = (drawn or rows)[0]
    network = "" if first["features"] == features.POINTS else f"\n{features.label(first['features'])}"
    axes.set_title(f"{labels.words(first['dataset'])}{_counts(rows)}", loc="left")
    axes.set_xlabel("NFE (network evaluations a sample)")
    axes.set_ylabel(f"{suite.about(metric).title}{network}")


def _curve(axes: Any, rows: Sequence[Row]) -> None:
    """One method with one sampler."""
    method, sampler = rows[0]["method"], rows[0]["sampler"]
    rows = sorted(rows, key=lambda row: float(row["nfe"]))
    spread = [float(row["std"] or 0) for row in rows]
    axes.errorbar(
        [float(row["nfe"]) for row in rows],
        [float(row["mean"]) for row in rows],
        yerr=spread if any(spread) else None,
        color=style.colour(method),
        marker=style.marker(method),
        linestyle=style.line(sampler),
        markerfacecolor=style.colour(method) if sampler == "heun" else "white",
        capsize=2,
        elinewidth=1,
    )


def _counts(rows: Sequence[Row]) -> str:
    drawn = sorted({int(row["n_samples"]) for row in rows if row["method"] != paper.BOUND})
    bound = sorted({int(row["n_samples"]) for row in rows if row["method"] == paper.BOUND})
    text = f", n = {drawn[0]}" if drawn else ""
    return text + (f" (bound {bound[0]})" if bound and bound != drawn else "")


def _legend(rows: Sequence[Row]) -> list[Any]:
    """Two columns of equal length: methods by colour and marker; samplers by dash, and the bound."""
    from matplotlib.lines import Line2D

    drawn = [row for row in rows if row["method"] != paper.BOUND]
    methods = {row["method"]: row["label"] for row in sorted(drawn, key=lambda row: paper.order(row["method"]))}
    left = [
        Line2D([], [], color=style.colour(method), marker=style.marker(method), label=label)
        for method, label in methods.items()
    ]
    right = [
        Line2D([], [], color=style.INK, linestyle=style.line(sampler), label=f"sampler {sampler}")
        for sampler in sorted({row["sampler"] for row in drawn})
    ]
    bounds = [row["label"] for row in rows if row["method"] == paper.BOUND]
    if bounds:
        right.append(Line2D([], [], **BOUND_LINE, label=bounds[0]))
    length = max(len(left), len(right))
    return [handle for side in (left, right) for handle in side + [Line2D([], [], alpha=0)] * (length - len(side))]
