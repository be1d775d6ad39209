"""How training went: the loss against samples seen."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Run
from hamflow.report import style

PANELS_A_ROW = 2


def names(parameters: Mapping[str, Any]) -> list[str]:
    return ["training"]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    return {"checkpoints": [run.checkpoint for run in targets.runs(parameters)]}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    seeds, shared = len(parameters["seeds"]), parameters["training"]["train_kimg"]
    lengths = []
    for dataset in parameters["run"]["datasets"]:
        entry = parameters["datasets"][dataset]
        lengths.append(f"{style.rest(entry['label'])} {entry['training'].get('train_kimg', shared)} kimg")
    return (
        f"Preset {parameters['preset']}: training loss against thousands of images (or points) seen, {seeds} "
        f"seed{'s' * (seeds > 1)} of each method: {', '.join(lengths)}, unless a method says otherwise. The level of a loss "
        "depends on the method's weighting: compare shapes, not heights. EDM and the Oscillation HGF at alpha = 1/sigma_data "
        "have the same loss where their times have the same law: their lines lie on each other."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """A panel a data set, a line a run, one colour a method.

    Raises:
        CheckpointError, DataError: a checkpoint that is not there, or has not a single loss.
    """
    datasets, methods = parameters["run"]["datasets"], targets.methods(parameters)
    looks = style.looks(methods)
    with style.panels(output, len(datasets), PANELS_A_ROW, width=3.7, height=2.6, margin=0.8) as (figure, panels):
        for axes, dataset in zip(panels, datasets, strict=True):
            _panel(axes, [run for run in targets.runs(parameters) if run.dataset == dataset], looks)
            axes.set_title(style.literal(parameters["datasets"][dataset]["label"]), loc="left")
        figure.suptitle(f"Training, preset {parameters['preset']}", fontsize=10)
        entries = [(_line(look), parameters["methods"][method]["label"]) for method, look in looks.items()]
        style.legend(figure, entries, ncols=min(len(methods), 4 if len(datasets) > 1 else 2))


def _line(look: style.Look) -> dict[str, Any]:
    return {"color": look.colour, "linewidth": look.width}


def _panel(axes: Any, runs: Iterable[Run], looks: style.Looks) -> None:
    from hamflow.files import load_metadata

    losses: list[float] = []
    for run in runs:
        records = load_metadata(run.checkpoint).get("history", [])
        if not records:
            raise DataError(f"{run.checkpoint} has no loss", fix="train again, for longer than one `training.report_kimg`")
        loss = [record["loss"] for record in records]
        marker = "." if len(records) < 3 else None
        axes.plot([record["kimg"] for record in records], loss, marker=marker, **_line(looks[run.method]))
        losses += loss
    if min(losses) > 0 and max(losses) > 5 * min(losses):
        axes.set_yscale("log")
    style.plain_log(axes.yaxis)
    axes.set_xlim(left=0)
    axes.set_xlabel("training samples seen (thousands, kimg)")
    axes.set_ylabel("training loss\n(each method's own weighting)")
