"""Samples beside real data: images in grids, points as clouds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hamflow.errors import DataError
from hamflow.pipeline import targets
from hamflow.pipeline.paths import Preset
from hamflow.report import style

if TYPE_CHECKING:
    import numpy as np

PANELS_A_ROW, WIDTH = 5, 2.15  # inches of a panel
ROWS = COLUMNS = 6  # images a panel
GAP = 1  # pixels between images
PAPER_WHITE = 255
SHOWN = 2000  # points a panel: more only blacken it


def names(parameters: Mapping[str, Any]) -> list[str]:
    return [f"samples-{dataset}" for dataset in parameters["run"]["datasets"]]


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    manifest = Preset(parameters["preset"]).data(_dataset(name)) / "dataset.json"
    return {"manifest": manifest, "samples": list(_files(parameters, name).values())}


def caption(parameters: Mapping[str, Any], name: str) -> str:
    entry = parameters["datasets"][_dataset(name)]
    return (
        f"{style.rest(entry['label'])}, preset {parameters['preset']}: real data, and samples of each method at its largest "
        f"number of evaluations, training seed {parameters['seeds'][0]}. The same number of a sample means the same noise in "
        f"every method; none was selected. Conditional on the class label: {'yes' if entry['conditional'] else 'no'}."
    )


def draw(parameters: Mapping[str, Any], name: str, output: Path) -> None:
    """A panel of real data, and one of each method's samples: the first of each, none selected.

    The same place is the same noise in every method. Of points the first two coordinates are shown, all with the same axes.

    Raises:
        DataError: no data, no samples, or samples of another shape than the data.
    """
    from hamflow.data import load

    dataset = load(Preset(parameters["preset"]).data(_dataset(name)))
    files = _files(parameters, name)
    looks = style.looks(files)
    same = len({path.stem for path in files.values()}) == 1
    sets = [("real data", style.DATA, dataset.rows)]
    for method, path in files.items():
        title = style.literal(parameters["methods"][method]["label"]) + ("" if same else f"\n{_setting(path.stem)}")
        sets.append((title, looks[method].colour, _read(path, dataset.rows)))
    count = ROWS * COLUMNS if dataset.kind == "image" else SHOWN
    count = min(count, *(len(rows) for *_, rows in sets))
    shared = dataset.kind != "image"
    size = style.title_size((title for title, *_ in sets), WIDTH)
    with style.panels(output, len(sets), PANELS_A_ROW, WIDTH, 2.35, 0.6, sharex=shared, sharey=shared) as (figure, panels):
        for axes, (title, colour, rows) in zip(panels, sets, strict=True):
            if dataset.kind == "image":
                show(axes, mosaic(rows[:count]))
            else:
                cloud(axes, rows[:count], colour)
            axes.set_title(title, fontsize=size)
        if shared:
            low, high = _window(dataset.rows)
            panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            figure.supxlabel("$x_1$ (data units)", fontsize=9)
            figure.supylabel("$x_2$ (data units)", fontsize=9)
        label = style.literal(parameters["datasets"][dataset.name]["label"])
        setting = f"{_setting(next(iter(files.values())).stem)}, " if same else ""
        what = f"{setting}seed {parameters['seeds'][0]}; the first {count}, none selected"
        figure.suptitle(f"{label}, preset {parameters['preset']}: {what}", fontsize=10)


def cloud(axes: Any, points: "np.ndarray", colour: Any, size: float = 1.6) -> None:
    """Points as dots in a square panel; pixels in the PDF, whose file would otherwise hold each dot."""
    axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, alpha=0.55, linewidths=0, rasterized=True)
    axes.set_aspect("equal")
    axes.grid(False)


def mosaic(images: "np.ndarray", rows: int = ROWS, columns: int = COLUMNS) -> "np.ndarray":
    """uint8 [N, H, W, C] as one picture, rows x columns with white gaps, [H', W'] if grey or [H', W', 3]."""
    import numpy as np

    n, height, width, channels = images.shape
    picture = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), PAPER_WHITE, dtype=np.uint8)
    for i in range(min(n, rows * columns)):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        picture[top : top + height, left : left + width] = images[i]
    return picture[..., 0] if channels == 1 else picture


def _dataset(name: str) -> str:
    return name.removeprefix("samples-")


def _files(parameters: Mapping[str, Any], name: str) -> dict[str, Path]:
    """The samples of each method at its largest budget, of the first seed."""
    preset, found = Preset(parameters["preset"]), {}
    for method in targets.methods(parameters, _dataset(name)):
        folder = preset.run(_dataset(name), method, parameters["seeds"][0]).samples
        found[method] = folder / f"{targets.largest_setting(parameters, method)}.npy"
    return found


def _setting(stem: str) -> str:
    """heun-nfe35 -> heun, 35 NFE."""
    sampler, _, nfe = stem.partition("-nfe")
    return f"{sampler}, adaptive" if nfe == "auto" else f"{sampler}, {nfe} NFE"


def show(axes: Any, picture: "np.ndarray") -> None:
    """A picture of `mosaic` in a panel without axes."""
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    style.bare(axes)
    axes.spines[:].set_visible(False)


def _read(path: Path, rows: "np.ndarray") -> "np.ndarray":
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} holds no samples ({error})", fix="draw them: `hamflow sample --help`") from error
    if (found.dtype == np.uint8) != (rows.dtype == np.uint8) or found.shape[1:] != rows.shape[1:]:
        what = f"{found.dtype} {list(found.shape)}, but the data are {rows.dtype} [N, {', '.join(map(str, rows.shape[1:]))}]"
        raise DataError(f"{path} holds {what}", fix="delete it and sample again")
    return found


def _window(points: "np.ndarray") -> Sequence[Any]:
    """The data's range, a little enlarged, so that a few strays do not shrink the picture."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    margin = 0.08 * (high - low)
    return low - margin, high + margin
