"""The samples that lie nearest to training images, each above its nearest one, where `evaluation.more` has memorisation."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hamflow.errors import DataError
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.report import style
from hamflow.report.figures.samples import mosaic, show

if TYPE_CHECKING:
    import numpy as np

    from hamflow.data import Dataset

PREFIX = "memorised-"
ASKED = "memorisation"
PAIRS = 8  # a method
WIDTH = 3.7  # inches of a panel


class Nearest(NamedTuple):
    """Of one method: the share that is called memorised, and the pairs [sample, training image, distance], nearest first."""

    share: float
    pairs: list[list[float]]


def names(parameters: Mapping[str, Any]) -> list[str]:
    if ASKED not in parameters.get("evaluation", {}).get("more", []):
        return []
    entries = parameters["datasets"]
    return [PREFIX + dataset for dataset in parameters["run"]["datasets"] if entries[dataset]["features"] != "points"]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    files = _files(parameters, name).values()
    return {
        "manifest": Preset(parameters["preset"]).manifest(_dataset(name)),
        "samples": [samples for samples, _ in files],
        "metrics": [metrics for _, metrics in files],
    }


def caption(parameters: Mapping[str, Any], name: str) -> str:
    entry = parameters["datasets"][_dataset(name)]
    return (
        f"{style.rest(entry['label'])}, preset {parameters['preset']}: of each method at its largest number of evaluations, "
        f"training seed {parameters['seeds'][0]}, the {PAIRS} samples (above) that are nearest to a training image (below), in "
        f"the features of {entry['features']}. The share is that of samples nearer to a training image than 99% of fresh "
        "images are: .01 if nothing is memorised."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """A panel a method: its nearest pairs, the sample above the training image.

    Raises:
        DataError: no data or samples, or metrics without such pairs.
    """
    from hamflow.data import load

    dataset, files = load(Preset(parameters["preset"]).data(_dataset(name))), _files(parameters, name)
    equal = parameters["datasets"][dataset.name].get("class_law") == "equal"
    training = dataset.rows[dataset.equal_rows()] if equal else dataset.rows  # as the samples were compared with
    looks = style.looks(files)
    shown = [(method, _nearest(metrics), _samples(samples, dataset)) for method, (samples, metrics) in files.items()]
    with style.panels(output, len(shown), 2, width=WIDTH, height=1.35, margin=0.5) as (figure, panels):
        for axes, (method, found, rows) in zip(panels, shown, strict=True):
            show(axes, picture(rows, training, found.pairs[:PAIRS]))
            title = f"{style.literal(parameters['methods'][method]['label'])}: share {found.share:.3f}"
            axes.set_title(title, loc="left", color=looks[method].colour, fontsize=style.title_size([title], WIDTH))
        title = style.literal(parameters["datasets"][dataset.name]["label"])
        figure.suptitle(f"{title}, preset {parameters['preset']}: samples above their nearest training images", fontsize=10)


def picture(samples: "np.ndarray", training: "np.ndarray", pairs: list[list[float]]) -> "np.ndarray":
    """uint8 pairs side by side, each sample above its training image, [H', W'] if grey or [H', W', 3].

    Args:
        samples, training: uint8 [N, H, W, C], [M, H, W, C]. pairs: [sample, training image, distance].
    """
    import numpy as np

    both = [samples[int(i)] for i, _, _ in pairs] + [training[int(j)] for _, j, _ in pairs]
    return mosaic(np.stack(both), 2, len(pairs))


def _dataset(name: str) -> str:
    return name.removeprefix(PREFIX)


def _files(parameters: Mapping[str, Any], name: str) -> dict[str, tuple[Path, Path]]:
    """(samples, metrics) of each method at its largest budget, of the first seed."""
    preset, found = Preset(parameters["preset"]), {}
    for method in targets.methods(parameters, _dataset(name)):
        run, setting = preset.run(_dataset(name), method, parameters["seeds"][0]), targets.largest_setting(parameters, method)
        found[method] = run.samples / f"{setting}.npy", run.metrics / f"{setting}.json"
    return found


def _nearest(path: Path) -> Nearest:
    from hamflow.files import read_json

    try:
        row = next(row for key, row in read_json(path)["metrics"].items() if key.startswith("memorised_"))
        found = Nearest(float(row["value"]), [[float(x) for x in pair] for pair in row["nearest"]])
        if not found.pairs or any(len(pair) != 3 for pair in found.pairs):
            raise ValueError("pairs of a sample and a training image are expected")
        return found
    except (OSError, LookupError, TypeError, ValueError, StopIteration) as error:
        fix = "evaluate them: `hamflow evaluate --help`"
        raise DataError(f"{path} says nothing of memorisation ({error!r})", fix=fix) from error


def _samples(path: Path, dataset: "Dataset") -> "np.ndarray":
    from hamflow.data.arrays import open_array

    why, fix = "a picture of other samples would say nothing of these", "draw them: `hamflow sample --help`"
    return open_array(path, dtype="uint8", shape=[None, *dataset.rows.shape[1:]], why=why, fix=fix)
