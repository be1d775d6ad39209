"""Clouds of generated points beside the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hamflow.errors import DataError
from hamflow.report import labels, paper, style
from hamflow.report.sources import Samples, find_samples

PANELS_A_ROW = 5
SHOWN = 2000  # points a panel: more only blacken it


def plot_points(
    data: str | Path,
    samples: str | Path | Sequence[Samples],
    output: str | Path,
    setting: str,
    seed: int | None = None,
    names: Mapping[str, str] = {},
) -> None:
    """A panel of data, and one of each method's samples, all with the same axes.

    Args:
        data: folder of a data set of points, D >= 2; the first two coordinates are shown.
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
    if dataset.kind != "point" or dataset.shape[0] < 2:
        raise DataError(f"{data} holds no points in the plane", fix="`hamflow plot samples` shows images")
    found = find_samples(Path(samples), setting, seed, names) if isinstance(samples, str | Path) else list(samples)
    clouds = [(paper.BOUND, "real data", dataset.rows)]
    clouds += [(s.method, s.label, _points(s.path, dataset.shape)) for s in found]
    shown = min(SHOWN, *(len(points) for _, _, points in clouds))
    across, down = style.across(len(clouds), PANELS_A_ROW)
    with style.drawing(output, 2.15 * across + 0.3, 2.3 * down + 0.7) as figure:
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, (method, title, points) in zip(panels, clouds, strict=False):
            cloud(axes, points[:shown], style.colour(method))
            axes.set_title(title)
        low, high = _window(dataset.rows)
        panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        for axes in panels[len(clouds) :]:
            axes.set_axis_off()
        figure.supxlabel("$x_1$ (data units)", fontsize=9)
        figure.supylabel("$x_2$ (data units)", fontsize=9)
        title = f"{labels.words(dataset.name)}{f', preset {found[0].preset}' if found[0].preset else ''}"
        figure.suptitle(f"{title}: {labels.setting(setting)}, {shown} points each", fontsize=10)


def cloud(axes: Any, points: np.ndarray, colour: Any, size: float = 1.6) -> None:
    """Points as dots in a square panel; pixels in the PDF, whose file would otherwise hold each dot."""
    axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, alpha=0.55, linewidths=0, rasterized=True)
    axes.set_aspect("equal")
    axes.grid(False)


def _window(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The data's range, a little enlarged, so that a few strays do not shrink the picture."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    margin = 0.08 * (high - low)
    return low - margin, high + margin


def _points(path: Path, shape: Sequence[int]) -> np.ndarray:
    points = np.load(path, mmap_mode="r")
    if points.ndim != 2 or points.shape[1:] != tuple(shape):
        raise DataError(
            f"{path} holds {list(points.shape)} numbers, but the data are [N, {shape[0]}]",
            fix="delete it and sample again",
        )
    return points
