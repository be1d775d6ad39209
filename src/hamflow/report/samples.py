"""Samples beside real data: images in grids, points as clouds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hamflow.errors import DataError
from hamflow.report import labels, style
from hamflow.report.points import plot_points
from hamflow.report.sources import Samples, find_samples

ROWS = COLUMNS = 6
BLOCKS_A_ROW = 5
GAP = 1  # pixels between images
PAPER_WHITE = 255


def plot_samples(
    data: str | Path,
    samples: str | Path | Sequence[Samples],
    output: str | Path,
    setting: str,
    seed: int | None = None,
    names: Mapping[str, str] = {},
) -> None:
    """A grid of real images, and one of each method's; a data set of points goes to `plot_points`.

    The first images of each are shown, none selected; the same place is the same noise in every method.

    Args:
        data: folder of the data set.
        samples: results/<preset>/samples/<dataset>, or what `find_samples` gives.
        output: the .png; a .pdf beside it.
        setting: the sampler and its budget, as heun-nfe35.
        seed: of the training runs; the first by default.
        names: labels of methods, by key.
    Raises:
        DataError: no data, no samples at that setting, or samples of another shape than the data.
    """
    from hamflow.data import load

    dataset = load(data)
    found = find_samples(Path(samples), setting, seed, names) if isinstance(samples, str | Path) else list(samples)
    if dataset.kind == "point":
        plot_points(data, found, output, setting)
        return
    blocks = [("real data", dataset.rows)] + [(s.label, _images(s.path, dataset.rows)) for s in found]
    across, down = style.across(len(blocks), BLOCKS_A_ROW)
    with style.drawing(output, 2.1 * across, 2.3 * down + 0.4) as figure:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (title, images) in zip(panels, blocks, strict=False):
            axes.imshow(mosaic(images[: ROWS * COLUMNS]), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title)
            style.bare(axes)
            axes.spines[:].set_visible(False)
        for axes in panels[len(blocks) :]:
            axes.set_axis_off()
        title = f"{heading(dataset.name, setting, found)}; the first {ROWS * COLUMNS}, none selected"
        figure.suptitle(title, fontsize=10)


def mosaic(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as one picture, ROWS x COLUMNS with white gaps, [H', W'] if grey or [H', W', 3]."""
    n, height, width, channels = images.shape
    picture = np.full((ROWS * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, channels), PAPER_WHITE, dtype=np.uint8)
    for i in range(min(n, ROWS * COLUMNS)):
        top, left = (i // COLUMNS) * (height + GAP), (i % COLUMNS) * (width + GAP)
        picture[top : top + height, left : left + width] = images[i]
    return picture[..., 0] if channels == 1 else picture


def heading(dataset: str, setting: str, found: Sequence[Samples]) -> str:
    """What the whole figure shows: data set, preset, sampler and budget, training seed."""
    preset = f", preset {found[0].preset}" if found[0].preset else ""
    seeds = ", ".join(dict.fromkeys(sample.path.parent.name.replace("seed", "seed ") for sample in found))
    return f"{labels.words(dataset)}{preset}: {labels.setting(setting)}, {seeds}"


def _images(path: Path, rows: np.ndarray) -> Any:
    images = np.load(path, mmap_mode="r")
    if images.dtype != np.uint8 or images.shape[1:] != rows.shape[1:]:
        raise DataError(
            f"{path} holds {images.dtype} {list(images.shape)}, but the data are uint8 [N, {rows.shape[1:]}]",
            fix="delete it and sample again",
        )
    return images
