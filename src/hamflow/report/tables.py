"""table1.csv, the contract with everything downstream, and the same in the paper's layout."""

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hamflow.files import write_json, write_text
from hamflow.pipeline.records import UNSAMPLED, MetricsError, Record, check_together, find, read
from hamflow.report import better, layout, paper

COLUMNS = {
    "preset": str,
    "dataset": str,
    "conditional": bool,
    "method": str,
    "label": str,
    "sampler": str,
    "nfe": float,
    "metric": str,
    "features": str,
    "n_samples": int,
    "seeds": int,
    "mean": float,
    "std": float,
    "paper": float,
}
EMPTY = ["std", "paper"]  # columns in which a line may have nothing


def tabulate(metrics: Path | Sequence[Path], output: Path, settings: Collection[str] | None = None) -> pd.DataFrame:
    """Write table1.csv, table1.md, .tex and .html in the paper's layout, and summary.json; equal inputs give equal bytes.

    Args:
        metrics: results/<preset>/metrics, or any folders below it.
        output: folder of the tables.
        settings: names of files without .json, instead of all that lie in `metrics`, where others may be left over.
    Returns:
        The lines of table1.csv.
    Raises:
        MetricsError: none, none with a value, or some that contradict each other (`hamflow.pipeline.records`).
    """
    folders = [metrics] if isinstance(metrics, str | Path) else list(metrics)
    records = [read(path) for path in find(folders, settings)]
    if not records:
        raise MetricsError(
            f"there are no metrics in {', '.join(map(str, folders))}",
            fix="run the experiment first: `snakemake --cores 2`, or `hamflow evaluate --help`",
        )
    check_together(records)
    frame = aggregate(records)
    if frame.empty:
        raise MetricsError("no metric has a value", fix="look at the metrics: `null` stands where one does not apply")
    output, best = Path(output), better.clearly_best(records, layout.largest_budget(frame[frame["sampler"] != UNSAMPLED]))
    titles = {record.dataset: record.dataset_label for record in records}
    grids = layout.grids(frame, titles, best, lowest(records))
    write_text(output / "table1.csv", to_csv(frame))
    write_json(output / "summary.json", summary(frame))
    write_text(output / "table1.md", layout.markdown(grids))
    write_text(output / "table1.tex", layout.latex(grids))
    write_text(output / "table1.html", layout.html(grids))
    return frame


def aggregate(records: Sequence[Record]) -> pd.DataFrame:
    """One line for each (data set, method, setting, metric), over the seeds.

    Sorted by data set, method (the paper's order, then by name, the bound last), sampler, NFE, metric. `seeds` counts them;
    `std` is the sample standard deviation (n - 1); for one seed it is the metric's own standard error, empty where it has
    none; `nfe` of an adaptive sampler is the mean over the seeds, `n_samples` the smallest that any seed's metric used.
    """
    groups = _groups(records)
    frame = pd.DataFrame([_line(name, members) for (*_, name), members in groups.items()], columns=list(COLUMNS))
    frame = frame.astype(COLUMNS)
    place = frame["method"].map(paper.order)
    order = frame.assign(method=place).sort_values(["dataset", "method", "sampler", "nfe", "metric"], kind="stable").index
    return frame.loc[order].reset_index(drop=True)


def lowest(records: Sequence[Record]) -> layout.Lowest:
    """The smallest value over the seeds, where there are several, by (data set, method, sampler, NFE, metric).

    EDM and those after it report the lowest of three: it is comparable with theirs alone.
    """
    found = {}
    for (dataset, method, _, name), members in _groups(records).items():
        if len(members) > 1:
            nfe = statistics.fmean(record.nfe for record in members)
            values = [record.metrics[name].value or 0.0 for record in members]
            found[dataset, method, members[0].sampler, nfe, name] = min(values)
    return found


def _groups(records: Sequence[Record]) -> dict[tuple[str, str, str, str], list[Record]]:
    """The seeds of each (data set, method, setting, metric) that has a value."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        for name, metric in record.metrics.items():
            if metric.value is not None:  # it does not apply to these samples
                groups.setdefault((record.dataset, record.method, record.setting, name), []).append(record)
    return groups


def _line(name: str, members: Sequence[Record]) -> dict[str, Any]:
    first, metrics = members[0], [record.metrics[name] for record in members]
    values = [float(metric.value) for metric in metrics if metric.value is not None]
    nfe = statistics.fmean(record.nfe for record in members)
    return {
        **{key: getattr(first, key) for key in ("preset", "dataset", "conditional", "method", "label", "sampler")},
        "nfe": nfe,
        "metric": name,
        "features": metrics[0].features,
        "n_samples": min(metric.n for metric in metrics),
        "seeds": len(members),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else metrics[0].standard_error,
        "paper": paper.published(first.dataset, first.conditional, first.method, nfe, name),
    }


def summary(frame: pd.DataFrame) -> dict[str, Any]:
    """The means as {data set: {method: {metric: {<sampler>-nfe<n>: mean}}}}: the form that `dvc metrics` compares."""
    tree: dict[str, Any] = {}
    for line in frame.itertuples():
        dataset = line.dataset + ("-conditional" if line.conditional else "")
        means = tree.setdefault(dataset, {}).setdefault(line.method, {}).setdefault(line.metric, {})
        means[f"{line.sampler}-nfe{line.nfe:g}"] = line.mean
    return tree


def to_csv(frame: pd.DataFrame) -> str:
    """The lines as CSV with a header, newline-terminated; the shortest text of each number that gives it back."""
    words = {"conditional": frame["conditional"].map({True: "true", False: "false"}), "nfe": frame["nfe"].map("{:g}".format)}
    return frame.assign(**words).to_csv(index=False, lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """The lines of a table1.csv. Raises MetricsError for a file that is absent or no such table."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(frame.columns) != list(COLUMNS) or frame.empty:
            raise ValueError(f"its columns are {', '.join(frame.columns)}")
        frame[EMPTY] = frame[EMPTY].replace("", "nan")
        frame = frame.assign(conditional=frame["conditional"].map({"true": 1, "false": 0}).astype(int)).astype(COLUMNS)
        if not np.isfinite(frame[["nfe", "mean"]]).all(axis=None) or np.isinf(frame[EMPTY]).any(axis=None):
            raise ValueError("a number in it is not finite")
        return frame
    except FileNotFoundError as error:
        raise MetricsError(f"there is no table {path}", fix="`hamflow tabulate --help`") from error
    except (OSError, ValueError, OverflowError) as error:
        raise MetricsError(f"{path} is not a table1.csv: {error}", fix="make it anew with `hamflow tabulate`") from error
