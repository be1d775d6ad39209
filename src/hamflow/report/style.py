"""The house style of every figure: fonts, one colour and marker a method, bytes without dates."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hamflow.files import atomic
from hamflow.report import paper

# Okabe and Ito 2008: told apart with any common colour blindness; markers tell them apart in grey.
COLOURS = {
    "edm": "#0072B2",
    "flow_matching": "#E69F00",
    "oscillation": "#D55E00",
    "reflection": "#009E73",
    "ve_sde": "#56B4E9",
    "vp_sde": "#CC79A7",
    paper.BOUND: "#444444",
}
MARKERS = {
    "edm": "o",
    "flow_matching": "s",
    "oscillation": "^",
    "reflection": "D",
    "ve_sde": "v",
    "vp_sde": "P",
}
SPARE_COLOURS = ("#B8A800", "#7F4F24", "#8A2BE2", "#5F9EA0")
SPARE_MARKERS = ("X", "<", ">", "*")
LINES = {
    "heun": "-",
    "multistep": (0, (5, 2)),
    "euler": (0, (1, 1.5)),
    "midpoint": (0, (5, 1.5, 1, 1.5)),
    "rk4": (0, (7, 2, 1, 2, 1, 2)),
    "dopri5": (0, (2, 2)),
}
INK = "#222222"
START, END = "#2166AC", "#C4302B"  # of a flow, t = 0 and t = T, as in the paper's figures

PARAMETERS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text in the PDF
    "image.interpolation": "nearest",
}


@contextmanager
def drawing(output: str | Path, width: float, height: float) -> Iterator[Any]:
    """A figure in the house style, written as .png and .pdf when the block ends; no global state.

    Args:
        output: path of the .png; the .pdf lies beside it.
        width, height: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **PARAMETERS}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        _save(figure, Path(output).with_suffix(".png"), {"Software": None})
        _save(figure, Path(output).with_suffix(".pdf"), {"CreationDate": None})


def colour(method: str) -> str:
    """The colour of a method, the same in every figure."""
    return COLOURS.get(method) or SPARE_COLOURS[_spare(method, len(SPARE_COLOURS))]


def marker(method: str) -> str:
    """The marker of a method, the same in every figure."""
    return MARKERS.get(method) or SPARE_MARKERS[_spare(method, len(SPARE_MARKERS))]


def line(sampler: str) -> Any:
    """The dashes of a sampler."""
    return LINES.get(sampler, (0, (3, 1)))


@cache
def time_map() -> Any:
    """The colour map of time: START at t = 0 to END at t = T, through a neutral middle."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("time", [START, "#B9A9C9", END])


def time_colour(fraction: float) -> tuple[float, float, float]:
    """The colour of t / T."""
    red, green, blue, _ = time_map()(float(fraction))  # of an integer it would be an index
    return red, green, blue


def plain_ticks(axes: Any) -> None:
    """Numbers such as 0.2, 1, 5 beside a logarithmic vertical axis, as many as are readable."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 50 else (1,), numticks=12))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def across(panels: int, most: int) -> tuple[int, int]:
    """Columns and rows for that many panels, at most `most` beside each other, rows as equal as can be."""
    rows = -(-panels // most)
    return -(-panels // rows), rows


def bare(axes: Any) -> None:
    """Leave an image or a point cloud without ticks and grid."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def _spare(method: str, count: int) -> int:
    return sum(method.encode()) % count


def _save(figure: Any, path: Path, metadata: dict[str, None]) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
