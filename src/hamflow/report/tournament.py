"""The table of the tournaments: what the models of a preset say of each other's scores, without samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hamflow.errors import DataError
from hamflow.files import read_json, write_text
from hamflow.pipeline import targets
from hamflow.pipeline.paths import HSD, Preset
from hamflow.pipeline.records import read
from hamflow.report import layout, paper

CLEAR = 3.0  # standard errors by which a model must be better than every other to be marked
MARK = "*"
NOBODY = "no rival"  # finds anything: the trivial bound, zero
WORDS = {"law": "fresh samples of the law", "held-out data": "held-out data", "training data": "the training data"}


class Bound(NamedTuple):
    """A lower bound of a model's discrepancy, a coordinate, its standard error, and who found it."""

    value: float
    error: float
    by: str


def tabulate(preset: Preset, parameters: Mapping[str, Any], output: Path) -> pd.DataFrame:
    """Write tournament.csv, .md and .html, a line a (data set, noise level, method); equal inputs give equal bytes.

    Returns: the lines, with the columns
        loss: denoising loss |D - x_0|^2 / sigma^2, a coordinate. loss_above_best, its paired loss_error.
        standing, standing_error: mean of the duels with all models, lower is better.
        clear: whether every loss difference to another model is negative by more than three standard errors.
        hsd, hsd_error, hsd_by: the sharpest lower bound of the discrepancy, and who found it: the estimator of hsd.json (a
            trained critic, or features), or a rival. It is the largest of several estimates, which favours chance a little.
    Raises:
        DataError: a tournament that is absent or incomplete. MetricsError: a discrepancy that is.
    """
    lines, grids = [], []
    for path in targets.tournaments(parameters):
        found = _read(path if preset.root == Path() else preset.root / path)
        own = {run.method: read(run.metrics / f"{HSD}.json") for run in targets.entrants(parameters, path.stem)}
        try:
            mine = [line for one in found["tournaments"] for line in _lines(found, one, own)]
        except (LookupError, TypeError, ValueError) as error:
            raise _incomplete(path, error) from error
        lines += mine
        grids.append(_grid(found, pd.DataFrame(mine)))
    frame = pd.DataFrame(lines)
    write_text(output / "tournament.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(output / "tournament.md", layout.markdown(grids))
    write_text(output / "tournament.html", layout.html(grids, "Models against each other"))
    return frame


def _lines(found: Mapping[str, Any], one: Mapping[str, Any], own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of one data set at one noise level, in the paper's order; a model that implies no denoiser has its own bound alone."""
    models, losses, differences = one["models"], one["denoising_loss"], one["loss_differences"]
    best, lines = losses.index(min(losses)), []
    for method in sorted(found["methods"], key=paper.order):
        line = {key: found[key] for key in ("preset", "dataset")} | {"sigma": one["sigma"], "method": method}
        line |= {"label": found["methods"][method], "n": one["n"], "samples": found["samples"]}
        bounds, row = [], {}
        if (metric := own[method].metrics.get(f"{HSD}@sigma={one['sigma']:g}")) and metric.value is not None:
            bounds.append(Bound(metric.value, metric.standard_error or 0.0, metric.features))
        if method in models:
            i = models.index(method)
            rival = one["rival_bound"][i]
            label = NOBODY if rival["rival"] == method else found["methods"][rival["rival"]]
            bounds.append(Bound(rival["value"], rival["standard_error"], label))
            values, errors = (differences[part][i] for part in ("values", "standard_errors"))
            row = {"loss": losses[i], "loss_above_best": values[best], "loss_error": errors[best]}
            row |= {key: one["standing"][part][i] for key, part in STANDING.items()}
            row["clear"] = all(values[j] < -CLEAR * errors[j] for j in range(len(models)) if j != i)
        sharpest = max(bounds, default=None)
        nothing = dict.fromkeys(("loss", "loss_above_best", "loss_error", *STANDING, "clear"))
        lines.append({**line, **nothing, **row, **_bound(sharpest)})
    return lines


STANDING = {"standing": "values", "standing_error": "standard_errors"}


def _bound(sharpest: Bound | None) -> dict[str, Any]:
    return dict(zip(("hsd", "hsd_error", "hsd_by"), sharpest or (None, None, None), strict=True))


def _grid(found: Mapping[str, Any], frame: pd.DataFrame) -> layout.Grid:
    """The table of one data set: a group of columns a noise level."""
    columns: list[tuple[str, str]] = [("", "method")]
    cells: dict[str, list[str]] = {method: [label] for method, label in found["methods"].items()}
    for sigma, lines in frame.groupby("sigma", sort=False):
        group = f"sigma = {sigma:g}"
        columns += [(group, title) for title in ("loss", "10^6 loss above the best", "10^6 standing", "10^6 HSD", "by")]
        for line in lines.to_dict("records"):
            cells[line["method"]] += _cells(line)
    order = sorted(cells, key=paper.order)
    head = pd.MultiIndex.from_tuples(columns)
    what = WORDS.get(found["samples"], found["samples"])
    caption = (
        f"{found['dataset_label']}, preset {found['preset']}, training seed {found['seed']}: models against each other, on "
        f"{what}, n = {frame['n'].iloc[0]}; lower is better. Loss: |D - x_0|^2 / sigma^2 a coordinate, of the denoiser that a "
        f"model implies at noise level sigma; ± standard error, paired over the same samples and noise; {MARK} lower than "
        f"every other by more than {CLEAR:g} standard errors. Standing: mean of the duels with all models. HSD: the sharpest "
        "lower bound of the discrepancy that a rival, or the estimator of Table 1, gives."
    )
    rows = pd.DataFrame([cells[method] for method in order], columns=head)
    return layout.Grid(f"tournament-{found['dataset']}", caption, rows, False)


def _cells(line: Mapping[str, Any]) -> list[str]:
    texts = [layout.NONE] * 5
    if not pd.isna(line["loss"]):
        texts[0] = layout.number(line["loss"]) + (MARK if line["clear"] else "")
        best = line["loss_above_best"] == 0 and line["loss_error"] == 0
        texts[1] = "0" if best else _millionths(line["loss_above_best"], line["loss_error"])
        texts[2] = _millionths(line["standing"], line["standing_error"])
    if not pd.isna(line["hsd"]):
        texts[3:] = [_millionths(line["hsd"], line["hsd_error"]), line["hsd_by"]]
    return texts


def _millionths(value: float, error: float) -> str:
    return layout.measurement(layout.MILLION * value, layout.MILLION * error)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        needed: Sequence[str] = ("preset", "dataset", "dataset_label", "methods", "samples", "seed", "tournaments")
        if missing := [key for key in needed if key not in found]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return dict(found)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _incomplete(path, error) from error


def _incomplete(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is no complete tournament ({error!r})",
        why="a model would be missing in the table",
        fix="make it anew: `hamflow tournament --help`",
    )
