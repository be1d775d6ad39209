"""Figures of Hamiltonian score matching: the mixture, the three validation panels, the comparison with other
objectives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hamflow.errors import DataError
from hamflow.files import read_json, write_text
from hamflow.report import style

HAMILTONIAN, PREDICTION = "#D55E00", "#222222"
ESTIMATORS = {"critic": "trained critic", "features": "random features", "binned": "bins", "neighbours": "neighbours"}
ESTIMATOR_COLOURS = {"critic": "#D55E00", "features": "#0072B2", "binned": "#009E73", "neighbours": "#CC79A7"}
NEGLIGIBLE = 1e-3  # of the largest density: where there are no data a score is not learned, and not drawn


def plot_score(result: str | Path, output: str | Path) -> None:
    """Draw the result of a study by its kind.

    Args: result: the .json. output: the .png; a .pdf beside it.
    Raises: DataError: no result, of a kind that has no figure, or without what its figure shows.
    """
    content = _read(result)
    figures = {
        "mixture": plot_mixture,
        "scatter": plot_scatter,
        "taylor": plot_taylor,
        "gradients": plot_gradients,
        "comparison": plot_comparison,
    }
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in figures:
        raise DataError(f"{result} holds no result that has a figure", fix=f"kinds: {', '.join(sorted(figures))}")
    with _complete(result):
        figures[kind](content, output)


def plot_mixture(result: dict[str, Any], output: str | Path) -> None:
    """Density, learned score, learned velocity predictor: the last two with arrows of one scale each, shown
    by a key."""
    fields = {key: np.asarray(value) for key, value in result["fields"].items()}
    axis, fine, density = fields["axis"], fields["fine_axis"], fields["fine_density"]
    there = fields["density"] > NEGLIGIBLE * density.max()
    with style.drawing(output, 10.6, 4.0) as figure:
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        filled = panels[0].contourf(fine, fine, density, levels=14, cmap="Blues")
        panels[0].set_title("density $p$")
        figure.colorbar(filled, ax=panels[0], shrink=0.75, pad=0.02)
        error, noise = result["score_error"], result["score_error_standard_error"]
        _arrows(panels[1], axis, fields["score"], there, key=3.0, colour=style.START)
        panels[1].set_title(
            f"learned score\n$E|s - \\nabla\\log p|^2$ = {error:.4f} $\\pm$ {noise:.4f}"
            f" ({100 * error / result['fisher_information']:.1f} % of Fisher)"
        )
        _arrows(panels[2], axis, fields["predictor"], there, key=1.0, colour=HAMILTONIAN)
        panels[2].set_title(
            f"learned velocity predictor at $t = T = {result['fields']['time']:g}$\n"
            f"rms {result['fields']['predictor_rms']:.3f} (velocities: 1)"
        )
        for axes in panels[1:]:
            axes.contour(fine, fine, density, levels=5, colors="#BBBBBB", linewidths=0.7)
        for axes in panels:
            axes.set_aspect("equal")
            axes.grid(False)
            axes.set_xlabel("$x_1$ (data units)")
        panels[0].set_ylabel("$x_2$ (data units)")
        figure.suptitle(
            f"Hamiltonian score matching, {result['settings']['steps']} updates; error over n = {result['n']}",
            fontsize=10,
        )


def plot_scatter(result: dict[str, Any], output: str | Path) -> None:
    """Panel (a): a dot a network, and the leading order (2 T^2 / 3) L_esm."""
    rows, horizon = result["networks"], result["spec"]["horizon"]
    x, y = (np.array([row[key] for row in rows]) for key in ("explicit_loss", "hsd"))
    dx, dy = (np.array([row[f"{key}_standard_error"] for row in rows]) for key in ("explicit_loss", "hsd"))
    with style.drawing(output, 4.9, 3.7) as figure:
        axes = figure.subplots()
        axes.errorbar(x, y, dy, dx, "o", color=HAMILTONIAN, elinewidth=0.7, markersize=4, alpha=0.85, label="a network")
        line = np.geomspace(x.min(), x.max(), 50)
        taylor = 2 * horizon**2 / 3 * line
        axes.plot(line, taylor, "--", color=PREDICTION, linewidth=1.1, label=r"leading order, $\frac{2}{3}T^2 L_{esm}$")
        axes.set(xscale="log", yscale="log", xlabel=r"explicit score matching loss $L_{esm}$")
        axes.set_ylabel(f"Hamiltonian score discrepancy,\naverage over $[0, {horizon:g}]$")
        _plain_log(axes.xaxis, x)
        _plain_log(axes.yaxis, y)
        axes.set_title(
            f"{len(rows)} networks, one epoch each; n = {result['n']}\n"
            f"Spearman {result['spearman']:.3f}, Pearson {result['pearson']:.3f}, of logarithms {result['pearson_log']:.3f}"
        )
        axes.legend(loc="lower right")


def plot_taylor(result: dict[str, Any], output: str | Path) -> None:
    """Panel (b): the discrepancy against time, and its ratio to the prediction."""
    with style.drawing(output, 7.6, 3.3) as figure:
        left, right = figure.subplots(1, 2)
        times = np.array(next(iter(result["curves"].values()))["times"])
        fine = np.linspace(0, times[-1], 100)
        top = 1.6 * max(max(curve["values"]) for curve in result["curves"].values())
        left.plot(fine, 2 * fine**2 * result["explicit_loss"], "--", color=PREDICTION, label=r"$2 t^2 L_{esm}$")
        right.axhspan(0.95, 1.05, color="#EEEEEE", zorder=0, label=r"$\pm$ 5 %")
        right.axhline(1, color=PREDICTION, linestyle="--", linewidth=1.1)
        for (name, curve), shape in zip(result["curves"].items(), "os^D", strict=False):
            colour, label = ESTIMATOR_COLOURS.get(name, PREDICTION), ESTIMATORS.get(name, name)
            left.errorbar(times, curve["values"], curve["standard_errors"], fmt=f"-{shape}", color=colour, label=label)
            right.errorbar(times, curve["ratio"], curve["ratio_standard_error"], fmt=f"-{shape}", color=colour, label=label)
        left.set(xlabel="time $t$", ylabel="discrepancy $D(t)$", xlim=(0, None), ylim=(0, top))
        right.set(xlabel="time $t$", ylabel=r"$D(t)\, /\, 2 t^2 L_{esm}$", xlim=(0, None), ylim=(0, None))
        left.legend(loc="upper left")
        right.legend(loc="lower left")
        figure.suptitle(
            f"empirical discrepancy and its Taylor prediction, $L_{{esm}}$ = {result['explicit_loss']:.3f}, n = {result['n']}",
            fontsize=10,
        )


def plot_gradients(result: dict[str, Any], output: str | Path) -> None:
    """Panel (c): a dot a parameter of the score network."""
    from matplotlib import colormaps

    denoising = {name: s for name, s in result["series"].items() if name.startswith("dsm")}
    shades = colormaps["viridis"](np.linspace(0.1, 0.85, max(len(denoising), 1)))
    with style.drawing(output, 6.6, 3.7) as figure:
        axes = figure.subplots()
        for (name, series), shade in zip(denoising.items(), shades, strict=True):
            label = f"DSM, $\\sigma$ = {name.partition('=')[2]} ({_snr(series)})"
            axes.scatter(series["mean"], series["std"], s=5, color=shade, alpha=0.5, linewidths=0, label=label, rasterized=True)
        series = result["series"]["hsm"]
        label = f"HSM ({_snr(series)})"
        axes.scatter(series["mean"], series["std"], s=8, color=HAMILTONIAN, linewidths=0, label=label, rasterized=True)
        stds = np.array([bound(s["std"]) for s in result["series"].values() for bound in (min, max)])
        ends = np.array([stds.min(), stds.max()])
        label = r"std $/ \sqrt{n}$: left of it the mean is noise"
        axes.plot(ends / result["n"] ** 0.5, ends, color=PREDICTION, linewidth=0.9, linestyle="--", label=label)
        axes.set(
            xscale="log", yscale="log", xlabel=r"$|$mean$|$ of $\partial L / \partial \theta_j$", ylabel="standard deviation"
        )
        axes.set_xlim(left=ends[0] / result["n"] ** 0.5 / 10)
        axes.set_title(f"per-sample gradients of one network, n = {result['n']}")
        legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2.5)
        for handle in legend.legend_handles:
            handle.set_alpha(1)


def plot_comparison(result: dict[str, Any], output: str | Path) -> None:
    """Exact score error and discrepancy of each method, at equal steps and at equal time."""
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    budgets = {"steps": ("equal updates", style.START, "o", -0.12), "time": ("equal time", style.END, "s", 0.12)}
    with style.drawing(output, 8.2, 0.42 * len(methods) + 1.5) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        quantities = (("score_error", r"$E|s - \nabla \log p|^2$"), ("hsd", "Hamiltonian score discrepancy"))
        for axes, (key, label) in zip(panels, quantities, strict=True):
            for budget, (words, colour, shape, shift) in budgets.items():
                rows = [row for row in result["rows"] if row["budget"] == budget]
                where = [methods.index(row["method"]) + shift for row in rows]
                mean, std = ([row[key][part] or 0.0 for row in rows] for part in ("mean", "std"))
                axes.errorbar(mean, where, xerr=std, fmt=shape, color=colour, label=words, capsize=2.5)
            means = np.array([row[key]["mean"] for row in result["rows"]])
            axes.set_xlabel(label)
            if (means > 0).all():
                axes.set_xscale("log")
                _plain_log(axes.xaxis, means)
            else:  # an estimate of zero may be negative
                axes.axvline(0, color=PREDICTION, linewidth=0.8)
        panels[0].set_yticks(range(len(methods)), [_method(name) for name in methods])
        panels[0].invert_yaxis()
        panels[0].legend(loc="best")
        runs = len(result["rows"][0]["runs"])
        updates = result["rows"][0]["steps"]
        budget = f"budget: {updates} updates, or the time that the first method needs for them"
        figure.suptitle(f"mean and standard deviation of {runs} seeds; {budget}; n = {result['n']}", fontsize=10)


def tabulate_comparison(result: str | Path, output: str | Path) -> None:
    """The comparison as a .csv, and a .md beside it.

    Raises: DataError: no result of the kind `comparison`, or an incomplete one.
    """
    content = _read(result)
    if content.get("kind") != "comparison":
        raise DataError(f"{result} holds no comparison, which alone has a table", fix="`hamflow study --help`")
    with _complete(result):
        lines = _lines(content)
    write_text(Path(output).with_suffix(".csv"), "\n".join(",".join(line) for line in lines) + "\n")
    table = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    write_text(Path(output).with_suffix(".md"), "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n")


def _lines(content: dict[str, Any]) -> list[list[str]]:
    """The cells of the table of a comparison, its head first."""
    head = ["method", "budget", "updates", "relative_time", "score_error", "score_error_std", "hsd", "hsd_std", "seeds", "n"]
    lines = [head]
    for row in content["rows"]:
        numbers = [row["time"]] + [row[key][part] for key in ("score_error", "hsd") for part in ("mean", "std")]
        words = ["" if value is None else f"{value:.4g}" for value in numbers]
        lines.append([row["method"], row["budget"], str(row["steps"]), *words, str(len(row["runs"])), str(content["n"])])
    return lines


def _arrows(axes: Any, axis: np.ndarray, field: np.ndarray, there: np.ndarray, key: float, colour: str) -> None:
    x, y = np.meshgrid(axis, axis)
    spacing = axis[1] - axis[0]
    scale = key / (1.5 * spacing)  # an arrow of the key's length spans one and a half cells of the grid
    arrows = axes.quiver(
        x[there], y[there], *field[there].T, color=colour, angles="xy", scale_units="xy", scale=scale, width=0.005
    )
    axes.quiverkey(arrows, 0.88, 0.03, key, f"{key:g}", labelpos="E", fontproperties={"size": 8})


def _plain_log(axis: Any, values: np.ndarray) -> None:
    """Ticks such as 0.2, 1, 5 on a logarithmic axis, as many as its range of values needs."""
    from matplotlib.ticker import LogLocator, NullFormatter

    ratio = np.max(values) / np.min(values)
    axis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7) if ratio < 5 else (1, 2, 5) if ratio < 100 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _snr(series: dict[str, Any]) -> str:
    """Signal to noise of the whole gradient, where the samples resolve it."""
    least = series["resolved_snr"]
    return f"SNR {series['snr']:.3f}" if series["snr"] > least else f"SNR < {least:.3f}"


def _method(name: str) -> str:
    kind, _, value = name.partition("=")
    known = {"hsm@form": f"HSM, {value} critic", "dsm@sigma": f"DSM, $\\sigma$ = {value}"}
    implicit = {"ism": "ISM, exact divergence", "ism@hutchinson": "ISM, Hutchinson", "ssm": "ISM, sliced"}
    return known.get(kind) or implicit.get(name, name)


def _read(result: str | Path) -> dict[str, Any]:
    try:
        content = read_json(result)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{result} is no result of a study ({error})", fix="`hamflow study --help`") from error


@contextmanager
def _complete(result: str | Path) -> Iterator[None]:
    """Within it, what a result lacks, or holds of another type, is a DataError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as error:
        raise DataError(
            f"{result} is no complete result of a study ({error!r})",
            why="it lacks what is to be shown, or holds something else in its place",
            fix="delete it and make it anew, `hamflow study --help`",
        ) from error
