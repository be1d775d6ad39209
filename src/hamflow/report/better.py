"""Which method of a table is better than every other: only where the interval of each difference excludes zero."""

import statistics
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hamflow.metrics.paired import LEVEL, Resampled, interval
from hamflow.pipeline.paths import BOUND
from hamflow.pipeline.records import Record

MARK = "*"
MEANING = f"{MARK} better than every other method: each difference has a {LEVEL:.0%} interval without zero (paired bootstrap)"


def clearly_best(records: Sequence[Record], lines: pd.DataFrame) -> set[tuple[str, str, str]]:
    """The (data set, method, metric) whose value is lower than that of every other method by more than chance.

    Args:
        records: what was measured. lines: of table1.csv, one for each data set, method and metric that are compared.
    Returns: nothing of a metric that was not resampled (`evaluation.more`, `paired`) for every method, or for one alone.
    """
    found = set()
    for (dataset, metric), group in lines[lines["method"] != BOUND].groupby(["dataset", "metric"]):
        drawn = {line.method: resampled(records, line) for line in group.sort_values("mean").itertuples()}
        if len(drawn) < 2 or not all(drawn.values()):
            continue
        first, *others = drawn
        differences = [(drawn[first], drawn[other]) for other in others]
        if all(pairs(a, b) and interval(a, b).high < 0 for a, b in differences):
            found.add((str(dataset), first, str(metric)))
    return found


def resampled(records: Sequence[Record], line) -> list[Resampled]:
    """Of each seed of a line; empty where one has none."""
    settings: dict[str, list[Record]] = {}
    for record in records:
        if (record.dataset, record.method, record.sampler) == (line.dataset, line.method, line.sampler):
            settings.setdefault(record.setting, []).append(record)
    for members in settings.values():
        if statistics.fmean(record.nfe for record in members) != line.nfe:
            continue
        rows = [r.metrics[line.metric] for r in sorted(members, key=lambda r: r.seed) if line.metric in r.metrics]
        if all(row.value is not None and row.resampled for row in rows):
            return [Resampled(row.value or 0.0, np.array(row.resampled)) for row in rows]
    return []


def pairs(a: list[Resampled], b: list[Resampled]) -> bool:
    """Whether both have as many seeds and as many resamples."""
    return len(a) == len(b) and len({len(one.draws) for one in (*a, *b)}) == 1
