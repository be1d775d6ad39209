"""The table of verdicts: does a method help beside one that is known? At each number of evaluations, with an interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hamflow.files import write_text
from hamflow.metrics.paired import LEVEL, Interval, interval
from hamflow.pipeline.records import MetricsError, Record
from hamflow.report import better, layout
from hamflow.report.tables import aggregate

HELPS, HURTS, UNDECIDED = "helps", "hurts", "undecided"


def tabulate(records: Sequence[Record], known: Sequence[str], output: Path) -> pd.DataFrame:
    """Write beyond.csv, .md and .html; equal records give equal bytes.

    A line is a method, at one NFE, beside one of the known methods at the same NFE, or at the nearest larger one that this was
    run with, else at its largest. Of each the sampler counts that has the lowest mean at that NFE.

    Args:
        records: metrics with paired resamples (`evaluation.more`, `paired`).
        known: the methods that the others are compared with.
        output: folder of the tables.
    Returns: the lines, with the columns
        value, reference: the distance of the method and of the known one, means over `seeds`.
        difference, low, high: value - reference, and its interval.
        verdict: helps or hurts where the interval excludes zero, else undecided.
    Raises:
        MetricsError: no two methods were resampled, or two that are no pairs.
    Source: `hamflow.metrics.paired.interval`.
    """
    best = _best(records)
    lines = [
        _line(records, mine, other)
        for mine in best.to_dict("records")
        for name in known
        if name != mine["method"] and (other := _opponent(best, mine, name)) is not None
    ]
    if not lines:
        raise MetricsError(
            f"there is nothing to compare with {' and '.join(known)}",
            why="verdicts need a distance with its paired resamples, of a known method and of another one",
            fix="set `evaluation.more` to [paired], run another method, or take `evaluation.beyond` out",
        )
    frame = pd.DataFrame(lines)
    titles = {record.dataset: record.dataset_label for record in records}
    grids = [_grid(frame[frame["dataset"] == name], titles[name]) for name in dict.fromkeys(frame["dataset"])]
    write_text(output / "beyond.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(output / "beyond.md", layout.markdown(grids))
    write_text(output / "beyond.html", layout.html(grids, "Beyond what is known"))
    return frame


def _best(records: Sequence[Record]) -> pd.DataFrame:
    """Of each (data set, method, NFE) the line of table1.csv with the lowest mean, of the distance that was resampled."""
    names = {name for record in records for name, metric in record.metrics.items() if metric.resampled}
    frame = aggregate([record for record in records if record.sampled])
    frame = frame[frame["metric"].isin(names)]
    place = ["dataset", "method", "nfe"]
    first = frame.sort_values(["mean", "sampler"], kind="stable").drop_duplicates(place).index
    return frame.loc[sorted(first)].sort_values(place, kind="stable", key=_as_in_table1(frame))


def _as_in_table1(frame: pd.DataFrame) -> Any:
    """A key that keeps data sets and methods in the order in which they stand, and sorts numbers."""
    order = {name: i for key in ("dataset", "method") for i, name in enumerate(dict.fromkeys(frame[key]))}
    return lambda column: column if column.name == "nfe" else column.map(order)


def _opponent(best: pd.DataFrame, mine: dict[str, Any], name: str) -> dict[str, Any] | None:
    rows = best[(best["dataset"] == mine["dataset"]) & (best["method"] == name) & (best["metric"] == mine["metric"])]
    enough = rows[rows["nfe"] >= mine["nfe"]]
    chosen = enough[enough["nfe"] == enough["nfe"].min()] if len(enough) else rows[rows["nfe"] == rows["nfe"].max()]
    return None if chosen.empty else dict(chosen.iloc[0])


def _line(records: Sequence[Record], mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    a, b = (better.resampled(records, pd.Series(line)) for line in (mine, other))
    if not a or not better.pairs(a, b):
        raise MetricsError(
            f"the samples of {mine['method']} and {other['method']} on {mine['dataset']} are no pairs",
            why="a difference has an interval only where both were resampled alike, for as many seeds",
            fix="evaluate both again, with `paired` in `evaluation.more`",
        )
    found = interval(a, b)
    return {
        **{key: mine[key] for key in ("preset", "dataset", "method", "label", "sampler", "nfe", "metric", "seeds")},
        "against": other["method"],
        **{f"against_{key}": other[key] for key in ("label", "sampler", "nfe")},
        "value": mine["mean"],
        "reference": other["mean"],
        **found._asdict(),
        "verdict": _verdict(found),
    }


def _verdict(found: Interval) -> str:
    return UNDECIDED if not found.clear else HELPS if found.high < 0 else HURTS


def _grid(frame: pd.DataFrame, title: str) -> layout.Grid:
    """One data set: a line for each method and known method, a column for each NFE."""
    budgets = sorted(set(frame["nfe"]))
    rows = []
    for (label, against), group in frame.groupby(["label", "against_label"], sort=False):
        cells = {line["nfe"]: _cell(line) for line in group.to_dict("records")}
        rows.append([label, against, *(cells.get(nfe, layout.NONE) for nfe in budgets)])
    head = pd.MultiIndex.from_tuples([("", "method"), ("", "against"), *(("NFE", f"{nfe:g}") for nfe in budgets)])
    first = frame.iloc[0]
    caption = (
        f"{title}, preset {first['preset']}: {first['metric']} of each method less that of a known one, in % of the latter, "
        f"with its {LEVEL:.0%} interval (paired bootstrap, {first['seeds']} training seed{'s' if first['seeds'] > 1 else ''}); "
        f"negative is better. Each has its best sampler at that number of evaluations; a method with fewer evaluations than "
        f"the known one was run with is compared with the latter's fewest. Undecided: the interval holds zero."
    )
    return layout.Grid(f"beyond-{first['dataset']}", caption, pd.DataFrame(rows, columns=head), False)


def _cell(line: dict[str, Any]) -> str:
    percent = [100 * line[key] / line["reference"] for key in ("difference", "low", "high")]
    return "{:+.0f} ({:+.0f}, {:+.0f}) {}".format(*percent, line["verdict"])
