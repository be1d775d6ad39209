"""How a GAN trained: the signs of its discriminator and the probability of the augmentations against samples seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow.errors import DataError
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Run
from hamflow.report import style

KIND = "gan"
CURVES = {"sign": "mean sign of the discriminator\nat the data", "p": "probability p of each augmentation"}


def names(parameters: Mapping[str, Any]) -> list[str]:
    return ["adversarial"] if _runs(parameters) else []


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    return {"checkpoints": [run.checkpoint for run in _runs(parameters)]}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    seeds = len(parameters["seeds"])
    return (
        f"Preset {parameters['preset']}: left, the mean sign of the discriminator's logits at the data, averaged between two "
        "reports: 0 where it cannot tell data from samples, 1 where it takes every datum for real, which it also does where it "
        "has learned the data by heart. Right, the probability p of each augmentation: it rises while the sign is above its "
        f"target, dotted, and falls below. {seeds} seed{'s' * (seeds > 1)} of each method; a line a run."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """Two panels, signs and p; one colour a method, one dash a data set.

    Raises:
        CheckpointError, DataError: a checkpoint that is not there, or has no curves.
    """
    runs = _runs(parameters)
    methods = list(dict.fromkeys(run.method for run in runs))
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    looks = style.looks(methods)
    dashes = dict(zip(datasets, ["-", "--", ":", "-.", *["-"] * len(datasets)], strict=False))
    with style.panels(output, 2, 2, width=3.7, height=2.6, margin=0.8) as (figure, panels):
        curves = {run: _curves(run) for run in runs}
        for axes, (key, label) in zip(panels, CURVES.items(), strict=True):
            for run, found in curves.items():
                look = looks[run.method]
                marker = "." if len(found["kimg"]) < 3 else None  # a line of one point shows nothing
                line = {"color": look.colour, "linewidth": look.width, "linestyle": dashes[run.dataset]}
                axes.plot(found["kimg"], found[key], marker=marker, **line)
            axes.set(xlabel="training samples seen (thousands, kimg)", ylabel=label)
            axes.set_xlim(left=0)
        for method in methods:
            panels[0].axhline(parameters["methods"][method].get("target", 0.6), color=style.DATA, linewidth=0.8, linestyle=":")
        panels[0].set_ylim(-1, 1)
        panels[1].set_ylim(bottom=0)
        figure.suptitle(f"Discriminators, preset {parameters['preset']}", fontsize=10)
        entries = [
            (
                {"color": looks[m].colour, "linestyle": dashes[d]},
                f"{parameters['methods'][m]['label']}, {_label(parameters, d)}",
            )
            for m in methods
            for d in datasets
        ]
        style.legend(figure, entries, ncols=2)


def _runs(parameters: Mapping[str, Any]) -> list[Run]:
    return [run for run in targets.runs(parameters) if parameters["methods"][run.method].get("kind") == KIND]


def _label(parameters: Mapping[str, Any], name: str) -> str:
    """Of a method or a data set."""
    return (parameters["methods"].get(name) or parameters["datasets"][name])["label"]


def _curves(run: Run) -> dict[str, list[float]]:
    from hamflow.files import load_metadata

    records = [record for record in load_metadata(run.checkpoint).get("history", []) if CURVES.keys() <= record.keys()]
    if not records:
        raise DataError(f"{run.checkpoint} has no signs", fix="train again, for longer than one `training.report_kimg`")
    return {key: [record[key] for record in records] for key in ("kimg", *CURVES)}
