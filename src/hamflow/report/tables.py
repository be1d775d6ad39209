"""table1.csv, the contract with everything downstream, and the same in the paper's layout."""

import csv
import io
import math
import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hamflow.files import write_json, write_text
from hamflow.pipeline.records import Metric, MetricsError, Record, check_together, find, read
from hamflow.report import layout, paper

COLUMNS = (
    "preset",
    "dataset",
    "conditional",
    "method",
    "label",
    "sampler",
    "nfe",
    "metric",
    "features",
    "n_samples",
    "seeds",
    "mean",
    "std",
    "paper",
)
Row = dict[str, str]


def tabulate(metrics: Path | Sequence[Path], output: Path, settings: Collection[str] | None = None) -> list[Row]:
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
    found = find(folders, settings)
    if not found:
        raise MetricsError(
            f"there are no metrics in {', '.join(map(str, folders))}",
            fix="run the experiment first: `snakemake --cores 2`, or `hamflow evaluate --help`",
        )
    results = [read(path) for path in found]
    check_together(results)
    rows = aggregate(results)
    if not rows:
        raise MetricsError("no metric has a value", fix="look at the metrics: `null` stands where one does not apply")
    write_text(Path(output) / "table1.csv", to_csv(rows))
    write_json(Path(output) / "summary.json", summary(rows))
    titles = {result.dataset: result.dataset_label for result in results}
    write_text(Path(output) / "table1.md", layout.markdown(rows, titles))
    write_text(Path(output) / "table1.tex", layout.latex(rows, titles))
    write_text(Path(output) / "table1.html", layout.html(rows, titles))
    return rows


def aggregate(results: Sequence[Record]) -> list[Row]:
    """One line for each (data set, method, setting, metric), over the seeds.

    Sorted by data set, conditional, method (the paper's order, then by name, the bound last), sampler, NFE, metric. `seeds`
    counts them; `std` is the sample standard deviation (n - 1); for one seed it is the metric's own standard error, empty
    where it has none; `nfe` of an adaptive sampler is the mean over the seeds, `n_samples` the smallest that any seed's
    metric used.
    """
    groups: dict[tuple, list[tuple[Record, Metric]]] = {}
    for result in results:
        for name, metric in result.metrics.items():
            if metric.value is not None:  # it does not apply to these samples
                key = (result.dataset, result.conditional, paper.order(result.method), result.sampler)
                groups.setdefault((*key, result.setting, name), []).append((result, metric))
    lines = [(_sort_key(key, members), _row(key[-1], members)) for key, members in groups.items()]
    return [row for _, row in sorted(lines, key=lambda line: line[0])]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The means as {data set: {method: {metric: {<sampler>-nfe<n>: mean}}}}: the form that `dvc metrics` compares."""
    tree: dict[str, Any] = {}
    for row in rows:
        dataset = row["dataset"] + ("-conditional" if row["conditional"] == "true" else "")
        means = tree.setdefault(dataset, {}).setdefault(row["method"], {}).setdefault(row["metric"], {})
        means[f"{row['sampler']}-nfe{row['nfe']}"] = float(row["mean"])
    return tree


def to_csv(rows: Sequence[Row]) -> str:
    """The lines as CSV with a header, newline-terminated."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def read_table(path: Path) -> list[Row]:
    """The lines of a table1.csv. Raises MetricsError for a file that is absent or no such table."""
    fix = "make it anew with `hamflow tabulate`"
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), tuple(reader.fieldnames or ())
    except FileNotFoundError as error:
        raise MetricsError(f"there is no table {path}", fix="`hamflow tabulate --help`") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MetricsError(f"{path} is not a table1.csv: {error}", fix=fix) from error
    if columns != COLUMNS or not rows:
        raise MetricsError(
            f"{path} is not a table1.csv: its columns are {', '.join(columns) or 'missing'}",
            fix=fix,
        )
    for number, row in enumerate(rows, 1):
        if not _is_line(row):
            raise MetricsError(f"{path} is not a table1.csv: line {number} below its head lacks a number", fix=fix)
    return rows


def _is_line(row: Row) -> bool:
    try:
        numbers = [int(row["seeds"]), int(row["n_samples"]), float(row["nfe"]), float(row["mean"]), float(row["std"] or 0)]
        return all(map(math.isfinite, numbers))
    except (ValueError, TypeError, OverflowError):  # TypeError: of a cell that is not there
        return False


def _sort_key(key: tuple, members: Sequence[tuple[Record, Metric]]) -> tuple:
    dataset, conditional, method, sampler, setting, metric = key
    return dataset, conditional, method, sampler, _nfe(members), setting, metric


def _nfe(members: Sequence[tuple[Record, Metric]]) -> float:
    return statistics.fmean(result.nfe for result, _ in members)


def _row(name: str, members: Sequence[tuple[Record, Metric]]) -> Row:
    result, metric = members[0]
    values = [m.value for _, m in members]
    spread = statistics.stdev(values) if len(values) > 1 else metric.standard_error
    nfe = _nfe(members)
    known = paper.published(result.dataset, result.conditional, result.method, nfe, name)
    return {
        "preset": result.preset,
        "dataset": result.dataset,
        "conditional": str(result.conditional).lower(),
        "method": result.method,
        "label": result.label,
        "sampler": result.sampler,
        "nfe": f"{nfe:g}",
        "metric": name,
        "features": metric.features,
        "n_samples": str(min(m.n for _, m in members)),
        "seeds": str(len(members)),
        "mean": repr(statistics.fmean(values)),
        "std": "" if spread is None else repr(spread),
        "paper": "" if known is None else repr(known),
    }
