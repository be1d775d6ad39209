"""What each row of Table 1 cost to train: CPU time, which differs between equal runs and so stands in no table of results."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from hamflow.files import write_text
from hamflow.pipeline.paths import BOUND, CIRCUMSTANCES, Run
from hamflow.pipeline.provenance import read_circumstances
from hamflow.pipeline.records import UNSAMPLED
from hamflow.report import layout

Parents = Mapping[str, Sequence[str]]  # {method: those that it starts from}


def tabulate(frame: pd.DataFrame, metrics: Sequence[Path], output: Path, parents: Parents, note: str = "") -> None:
    """Write cost.run.md and cost.run.html: each method with its value / NFE and the CPU minutes of its training.

    Args:
        frame: the lines of table1.csv. metrics: the folders .../<dataset>/<method>/seed<k>, whose run.json tell the seconds.
        output: folder of the tables. note: a sentence below the heading.
    """
    lines = layout.largest_budget(frame[(frame["sampler"] != UNSAMPLED) & (frame["method"] != BOUND)])
    own, columns = minutes(metrics, parents), []
    for dataset in dict.fromkeys(lines["dataset"]):
        columns += [
            (dataset, "value / NFE", lambda m, d=dataset: _values(lines, d).get(m, layout.NONE)),
            (dataset, "training", lambda m, d=dataset: _text(own.get((d, m)))),
            (dataset, "with its parents", lambda m, d=dataset: _text(_with_parents(own, d, m, parents))),
        ]
    labels = dict(zip(lines["method"], lines["label"], strict=True))
    head = pd.MultiIndex.from_tuples([("", "method"), *((group, title) for group, title, _ in columns)])
    rows = [[label, *(cell(method) for *_, cell in columns)] for method, label in labels.items()]
    caption = (
        f"Preset {frame.iloc[0]['preset']}: CPU minutes of one training of each row, a mean over the seeds, and with those of "
        f"the methods that it starts from; beside them the value of Table 1 and its NFE. {note}"
    )
    grid = layout.Grid("cost", caption.strip(), pd.DataFrame(rows, columns=head), False)
    write_text(output / "cost.run.md", layout.markdown([grid]))
    write_text(output / "cost.run.html", layout.html([grid]))


def minutes(metrics: Sequence[Path], parents: Parents) -> dict[tuple[str, str], float]:
    """CPU minutes of a training by (data set, method), a mean over the seeds of which they are known.

    A method from which another one starts need be no row: then its checkpoint tells them.
    """
    told: dict[Run, Any] = {}
    for run, folder in ((Run.of(folder), folder) for folder in metrics):
        if run and run.method != BOUND:
            told[run] = read_circumstances(folder / CIRCUMSTANCES).get("training", {}).get("cpu_seconds")
    needed = {replace(run, method=name) for run in told for name in lineage(run.method, parents)}
    for run in needed - told.keys():
        told[run] = read_circumstances(run.checkpoint.parent / CIRCUMSTANCES).get("cpu_seconds")
    found: dict[tuple[str, str], list[float]] = {}
    for run, seconds in told.items():
        if isinstance(seconds, int | float):
            found.setdefault((run.dataset, run.method), []).append(seconds / 60)
    return {key: statistics.fmean(values) for key, values in found.items()}


def lineage(method: str, parents: Parents) -> set[str]:
    """A method and all that it starts from, directly or not."""
    needed, queue = {method}, [method]
    while queue:
        new = set(parents.get(queue.pop(), ())) - needed
        needed |= new
        queue += new
    return needed


def _with_parents(own: Mapping[tuple[str, str], float], dataset: str, method: str, parents: Parents) -> float | None:
    """The minutes of a method and of all that it starts from, each once; None where some are not known."""
    known = [own.get((dataset, name)) for name in lineage(method, parents)]
    return None if None in known else sum(value for value in known if value is not None)


def _values(lines: pd.DataFrame, dataset: str) -> dict[str, str]:
    """value / NFE of each method, by the metric that speaks for the data set."""
    from hamflow.metrics import suite

    mine = lines[lines["dataset"] == dataset]
    mine = mine[mine["metric"] == suite.headline(set(mine["metric"]))]
    return {line.method: f"{layout.measurement(line.mean, line.std)} / {line.nfe:g}" for line in mine.itertuples()}


def _text(value: float | None) -> str:
    return layout.NONE if value is None else f"{value:.1f}"
