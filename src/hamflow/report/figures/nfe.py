"""Distance to the data against the number of network evaluations: what a sampler buys."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamflow.pipeline import targets
from hamflow.pipeline.paths import BOUND, Preset
from hamflow.pipeline.records import UNSAMPLED, MetricsError
from hamflow.report import style

if TYPE_CHECKING:
    import pandas as pd

PANELS_A_ROW = 2
COLUMN = 8  # methods in a column of the legend
TITLE = 40  # characters that fit above a panel
NEAR = 0.06  # parts of the axis that two numbers below it need between them
BOUND_LINE: dict[str, Any] = {"color": style.DATA, "linestyle": (0, (4, 3)), "linewidth": 1.1}


def names(parameters: Mapping[str, Any]) -> list[str]:
    return ["nfe"]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    return {"table": Preset(parameters["preset"]).table("table1.csv")}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    budgets = parameters["sampling"]["settings"].items()
    chosen = {name: parameters["datasets"][name] for name in parameters["run"]["datasets"]}
    seeds = len(parameters["seeds"])
    return (
        f"Preset {parameters['preset']}: distance between samples and data against the number of network evaluations, for "
        + ", ".join(f"{sampler} ({', '.join(map(str, nfe))})" for sampler, nfe in budgets if nfe)
        + ". "
        + "; ".join(f"{style.rest(d['label'])}: {d['n_samples']} samples, features {d['features']}" for d in chosen.values())
        + f". Mean over {seeds} seed{'s' * (seeds > 1)}. The bound is the distance of real data to real data."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """A panel a data set: one colour a method, one dash a sampler, the bound as a horizontal line; log axes.

    Bars are the standard deviation over the seeds, where there are several. Each data set is shown by the metric that speaks
    for it.

    Raises:
        MetricsError: no table, no metrics of samples in it, or none of a data set.
    """
    from hamflow.report.tables import read_table

    path = Preset(parameters["preset"]).table("table1.csv")
    frame = read_table(path)
    frame = frame[frame["sampler"] != UNSAMPLED]
    datasets = parameters["run"]["datasets"]
    for dataset in datasets:
        if dataset not in set(frame["dataset"]):
            fix = "evaluate some first: `hamflow evaluate --help`"
            raise MetricsError(f"{path} has no metrics of samples of data set '{dataset}'", fix=fix)
    frame = frame[frame["dataset"].isin(datasets)]
    looks = style.looks([*targets.methods(parameters), *frame["method"]])
    with style.panels(output, len(datasets), PANELS_A_ROW, width=3.7, height=2.9, margin=0.9) as (figure, panels):
        for axes, dataset in zip(panels, datasets, strict=True):
            _panel(axes, frame[frame["dataset"] == dataset], looks)
            title = style.literal(parameters["datasets"][dataset]["label"])
            counts = _counts(frame[frame["dataset"] == dataset])
            axes.set_title(title + ("\n" if len(title + counts) > TITLE else ", ") * bool(counts) + counts, loc="left")
        seeds = frame["seeds"].max()
        bars = f"; bars: standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
        figure.suptitle(f"Preset {parameters['preset']}{bars}", fontsize=10)
        columns = _legend(frame, looks)
        style.legend(figure, list(itertools.chain(*columns)), ncols=len(columns), handlelength=3.5)


def _panel(axes: Any, frame: "pd.DataFrame", looks: style.Looks) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    from hamflow.metrics import features, suite

    metric = suite.headline(set(frame["metric"]))
    frame = frame[frame["metric"] == metric]
    drawn = frame[frame["method"] != BOUND]
    for method, look in looks.items():
        for sampler, lines in drawn[drawn["method"] == method].groupby("sampler"):
            _curve(axes, lines.sort_values("nfe"), sampler, look)
    for mean in frame.loc[frame["method"] == BOUND, "mean"]:
        axes.axhline(mean, **BOUND_LINE)
    axes.set_xscale("log")
    if (frame["mean"] > 0).all():  # an unbiased estimate may be negative
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks(drawn["nfe"])))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    style.plain_log(axes.yaxis)
    network = frame.iloc[0]["features"]
    axes.set_xlabel("NFE (network evaluations a sample)")
    axes.set_ylabel(suite.about(metric).title + ("" if network == features.POINTS else f"\n{features.label(network)}"))


def _curve(axes: Any, lines: "pd.DataFrame", sampler: str, look: style.Look) -> None:
    """One method with one sampler; of several seeds, a band of their standard deviation too."""
    if lines["seeds"].max() > 1:
        low, high = lines["mean"] - lines["std"], lines["mean"] + lines["std"]
        axes.fill_between(lines["nfe"], low.clip(lower=lines["mean"] / 10), high, color=look.colour, alpha=0.12, linewidth=0)
    axes.errorbar(
        lines["nfe"],
        lines["mean"],
        yerr=lines["std"].fillna(0) if lines["std"].notna().any() else None,
        color=look.colour,
        marker=look.marker,
        markersize=look.size,
        linewidth=look.width,
        linestyle=style.line(sampler),
        markerfacecolor=look.colour if sampler == "heun" else "white",
        capsize=2,
        elinewidth=1,
    )


def ticks(budgets: "pd.Series[float]") -> list[float]:
    """Budgets whose numbers do not overlap on a logarithmic axis: of two near ones that of more lines, or the larger."""
    counts = budgets.value_counts()
    apart = NEAR * math.log(max(counts.index) / min(counts.index)) if len(counts) else 0.0
    kept: list[float] = []
    for budget in sorted(counts.index, key=lambda n: (-counts[n], -n)):
        if all(abs(math.log(budget / other)) >= apart for other in kept):
            kept.append(budget)
    return sorted(kept)


def _counts(frame: "pd.DataFrame") -> str:
    drawn, bound = (sorted(set(frame.loc[(frame["method"] == BOUND) == real, "n_samples"])) for real in (False, True))
    text = f"n = {drawn[-1]}" if drawn else ""
    return text + (f" (bound {bound[-1]})" if bound and bound != drawn else "")


def _legend(frame: "pd.DataFrame", looks: style.Looks) -> list[list[tuple[dict[str, Any], str]]]:
    """Columns of equal length: one or more of methods by colour and marker; one of samplers by dash, and the bound."""
    labels = dict(zip(frame["method"], frame["label"], strict=True))
    left = [(look.line(), labels[method]) for method, look in looks.items() if method in labels and method != BOUND]
    samplers = sorted(set(frame.loc[frame["method"] != BOUND, "sampler"]))
    right = [({"color": style.INK, "linestyle": style.line(sampler)}, f"sampler {sampler}") for sampler in samplers]
    right += [(BOUND_LINE, labels[BOUND])] if BOUND in labels else []
    parts = -(-len(left) // COLUMN)
    length = max(-(-len(left) // max(parts, 1)), len(right))
    columns = [left[i * length : (i + 1) * length] for i in range(-(-len(left) // length))] + [right]
    return [column + [({"alpha": 0}, "")] * (length - len(column)) for column in columns]
