"""The house style of every figure: fonts, one colour and marker a method, bytes without dates."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from hamflow.files import atomic
from hamflow.pipeline.paths import BOUND

# Okabe and Ito 2008: told apart with any common colour blindness; markers tell them apart in grey.
KNOWN = {
    "edm": ("#0072B2", "o"),
    "flow_matching": ("#E69F00", "s"),
    "oscillation": ("#D55E00", "^"),
    "reflection": ("#009E73", "D"),
    "ve_sde": ("#56B4E9", "v"),
    "vp_sde": ("#CC79A7", "P"),
}
SPARE = [  # for other methods, in their order
    *(("#7F4F24", "X"), ("#8A2BE2", "<"), ("#B8A800", ">"), ("#5F9EA0", "*"), ("#E7298A", "p"), ("#1A237E", "h")),
    *(("#7CB518", "8"), ("#FF9E9E", "d"), ("#8B0000", "H"), ("#9E9E9E", (4, 1, 0)), ("#00E5D0", (6, 1, 0))),
    *(("#B39DDB", (3, 1, 0)), ("#33691E", (8, 1, 0)), ("#FFD54F", (4, 1, 45)), ("#FF00FF", (3, 1, 60)), ("#000000", "$+$")),
]
DATA = "#444444"
LINES = {
    "heun": "-",
    "multistep": (0, (5, 2)),
    "euler": (0, (1, 1.5)),
    "midpoint": (0, (5, 1.5, 1, 1.5)),
    "rk4": (0, (7, 2, 1, 2, 1, 2)),
    "dopri5": (0, (2, 2)),
    "dopri5_each": (0, (2, 1)),
}
INK = "#222222"
LEGEND_ROWS, LEGEND_ROW = 5, 0.19  # that a drawing has room for; inches that a further one needs
LEGEND_MARGIN = 0.2  # inches that a drawing is wider than its legend, at least
LETTER = 0.54  # width of a letter of a title, in its font size, with some room
HAMILTONIAN = "#D55E00"  # score matching
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


@contextmanager
def panels(
    output: str | Path, count: int, most: int, width: float, height: float, margin: float, **shared: bool
) -> Iterator[tuple[Any, Any]]:
    """A drawing of that many panels, at most `most` beside each other, rows as equal as can be: (figure, panels).

    Args:
        output: path of the .png; the .pdf lies beside it.
        width, height: of a panel, inches. margin: what the heading and the legend add to the height.
        shared: `sharex`, `sharey` of all panels.
    """
    rows = -(-count // most)
    columns = -(-count // rows)
    with drawing(output, width * columns + (1.2 if columns == 1 else 0), height * rows + margin) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
        for axes in grid[count:]:
            axes.set_axis_off()
        yield figure, grid[:count]


def title_size(titles: Iterable[str], width: float) -> float:
    """The font size, points, at which no line of panels' titles is wider than a panel, and at most the usual one.

    Args:
        width: of a panel, inches.
    """
    longest = max((len(line) for title in titles for line in title.split("\n")), default=0)
    return float(min(PARAMETERS["axes.titlesize"], 72 * width / (LETTER * max(longest, 1))))


class Look(NamedTuple):
    """How a method is drawn, the same in every figure of a preset; the first methods are wider, and lie below the others."""

    colour: str
    marker: Any
    width: float = 1.6
    size: float = 4.5

    def line(self) -> dict[str, Any]:
        """Of a line in a legend."""
        return {"color": self.colour, "marker": self.marker, "linewidth": self.width, "markersize": self.size}


Looks = dict[str, Look]


def looks(methods: Iterable[str]) -> Looks:
    """The look of each method: its own, or for one that is not known, the next spare one. Sixteen others are told apart."""
    names = [method for method in dict.fromkeys(methods) if method != BOUND]
    spare = cycle(SPARE)
    below = {name: (len(names) - 1 - place) / max(len(names) - 1, 1) for place, name in enumerate(names)}
    return {name: Look(*(KNOWN.get(name) or next(spare)), 1.3 + 1.5 * below[name], 4.2 + 2.3 * below[name]) for name in names}


def legend(figure: Any, entries: Sequence[tuple[dict[str, Any], str]], **options: Any) -> None:
    """A legend below the panels, of lines and their labels, which may be any text; a large one makes the drawing larger."""
    from matplotlib.lines import Line2D

    rows = -(-len(entries) // options.get("ncols", 1))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - LEGEND_ROWS))
    handles = [Line2D([], [], label="-", **line) for line, _ in entries]
    made = figure.legend(handles=handles, loc="outside lower center", **options)
    for text, (_, label) in zip(made.get_texts(), entries, strict=True):
        text.set_text(literal(label))  # as its label, one that begins with _ would be left out
    figure.canvas.draw()
    figure.set_figwidth(max(figure.get_figwidth(), made.get_window_extent().width / figure.dpi + LEGEND_MARGIN))


def literal(text: str) -> str:
    """A text of the parameters for matplotlib, in which $ begins no formula."""
    return text.replace("$", r"\$")


def rest(text: str) -> str:
    """A text of the parameters for reStructuredText, in which every character is itself."""
    return re.sub(r"([^\w\s])", r"\\\1", text)


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


def plain_log(axis: Any) -> None:
    """Numbers such as 0.2, 1, 5 beside a logarithmic axis, as many as its range needs; another axis is left as it is."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if axis.get_scale() == "log":
        low, high = axis.get_view_interval()
        subs = (1, 1.5, 2, 3, 5, 7) if high / low < 6 else (1, 2, 5) if high / low < 60 else (1,)
        axis.set_major_locator(LogLocator(10, subs=subs, numticks=12))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())


def bare(axes: Any) -> None:
    """Leave an image or a point cloud without ticks and grid."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)


def _save(figure: Any, path: Path, metadata: dict[str, None]) -> None:
    with atomic(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
