"""How training went: the loss against images seen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.files import load_metadata
from hamflow.report import labels, style
from hamflow.report.sources import method_label

PANELS_A_ROW = 2


def plot_training(
    checkpoints: Mapping[str, Mapping[str, Sequence[Path]]],
    output: str | Path,
    preset: str = "",
    names: Mapping[str, str] = {},
) -> None:
    """A panel a data set, a line a run, one colour a method.

    Args:
        checkpoints: {data set: {method: [model.safetensors of each seed]}}, as `hamflow.report.sources.find_checkpoints`
            gives; each holds its own curve.
        output: the .png; a .pdf beside it.
        preset: named in the heading.
        names: labels of methods, by key.
    Raises:
        DataError: a checkpoint without a single loss.
    """
    across = min(PANELS_A_ROW, len(checkpoints))
    down = -(-len(checkpoints) // across)
    methods = list(dict.fromkeys(method for runs in checkpoints.values() for method in runs))
    with style.drawing(output, 3.7 * across + (1.0 if across == 1 else 0), 2.6 * down + 0.8) as figure:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (dataset, runs) in zip(panels, checkpoints.items(), strict=False):
            _panel(axes, runs)
            axes.set_title(labels.words(dataset), loc="left")
        for axes in panels[len(checkpoints) :]:
            axes.set_axis_off()
        figure.suptitle(f"Training{f', preset {preset}' if preset else ''}", fontsize=10)
        handles = [_handle(method, method_label(method, names)) for method in methods]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * across))


def _panel(axes: Any, runs: Mapping[str, Sequence[Path]]) -> None:
    losses: list[float] = []
    for method, paths in runs.items():
        for path in paths:
            records = load_metadata(path).get("history", [])
            if not records:
                raise DataError(f"{path} has no loss", fix="train again, for longer than one `training.report_kimg`")
            axes.plot(
                [record["kimg"] for record in records],
                [record["loss"] for record in records],
                color=style.colour(method),
                linewidth=1.3,
                alpha=1.0 if len(paths) == 1 else 0.7,
                marker="." if len(records) < 3 else None,
            )
            losses += [record["loss"] for record in records]
    if min(losses) > 0 and max(losses) > 5 * min(losses):
        axes.set_yscale("log")
        style.plain_ticks(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("training samples seen (thousands, kimg)")
    axes.set_ylabel("training loss\n(each method's own weighting)")


def _handle(method: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour(method), label=label)
