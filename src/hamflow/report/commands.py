"""The verbs `tabulate` and `plot KIND` of the command line."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamflow.errors import ConfigurationError


@dataclass(frozen=True)
class Plot:
    """A kind of figure: what it shows, its options, and the function that draws it from them."""

    help: str
    options: Callable[[argparse.ArgumentParser], Any]
    draw: Callable[[argparse.Namespace], None]


def add_arguments(subparsers) -> None:
    """Mount `tabulate` and `plot` on the subparsers of `hamflow`; `args.run` runs them."""
    table = subparsers.add_parser(
        "tabulate",
        help="table1.csv, .md, .tex and .html from the metrics of a preset",
        description="Aggregate metrics over the seeds: table1.csv, and the paper's layout as .md, .tex and .html.",
    )
    table.add_argument(
        "--metrics",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="results/<preset>/values or metrics, or folders in it",
    )
    table.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the tables")
    table.add_argument(
        "--setting", nargs="+", metavar="NAME", help="only these: heun-nfe35, hsd, real-nfe0, ... (default: all that there are)"
    )
    table.set_defaults(run=_tabulate)

    plot = subparsers.add_parser("plot", help="figures, each as .png and .pdf", description="Draw a figure.")
    kinds = plot.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in PLOTS.items():
        parser = kinds.add_parser(name, help=kind.help, description=kind.help[0].upper() + kind.help[1:] + ".")
        parser.add_argument("--output", type=Path, required=True, metavar="PNG", help="the .png; a .pdf beside it")
        kind.options(parser)
        parser.set_defaults(run=kind.draw)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    args.run(args)


def _tabulate(args: argparse.Namespace) -> None:
    from hamflow.report import tabulate

    rows = tabulate(args.metrics, args.output, args.setting)
    print(f"{args.output / 'table1.csv'}: {len(rows)} lines, preset {rows[0]['preset']}")


def _nfe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=Path, required=True, metavar="CSV", help="table1.csv")
    parser.add_argument("--dataset", action="append", metavar="NAME", help="only this data set (again for more)")
    parser.add_argument("--metric", help="the metric to show (default: FID, FD or W2, whichever the data set has)")


def _nfe(args: argparse.Namespace) -> None:
    from hamflow.report import plot_nfe

    plot_nfe(args.table, args.output, datasets=args.dataset, metric=args.metric)


def _samples_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="data/<dataset>")
    parser.add_argument("--samples", type=Path, required=True, metavar="DIR", help="results/<preset>/samples/<dataset>")
    parser.add_argument("--setting", required=True, help="sampler and budget, for example heun-nfe35")
    parser.add_argument("--seed", type=int, metavar="K", help="of the training runs (default: the first that there is)")
    _label_option(parser)


def _samples(args: argparse.Namespace) -> None:
    from hamflow.report import plot_samples

    names = _labels(args.label)
    plot_samples(args.data, args.samples, args.output, args.setting, seed=args.seed, names=names)


def _points(args: argparse.Namespace) -> None:
    from hamflow.report import plot_points

    names = _labels(args.label)
    plot_points(args.data, args.samples, args.output, args.setting, seed=args.seed, names=names)


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoints", type=Path, required=True, metavar="DIR", help="checkpoints/<preset>")
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="only these data sets")
    parser.add_argument("--seed", nargs="+", type=int, metavar="K", help="only these training runs")
    _label_option(parser)


def _training(args: argparse.Namespace) -> None:
    from hamflow.report import plot_training
    from hamflow.report.sources import find_checkpoints

    names = _labels(args.label)
    found = find_checkpoints(args.checkpoints, args.dataset, names, args.seed)
    plot_training(found, args.output, preset=args.checkpoints.resolve().name, names=names)


def _phase_space(args: argparse.Namespace) -> None:
    from hamflow.studies.phase_space import plot_phase_space

    plot_phase_space(args.output)


def _reflection(args: argparse.Namespace) -> None:
    from hamflow.studies.reflection import plot_reflection

    plot_reflection(args.output)


def _label_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="METHOD=TEXT",
        help="how the figure calls a method (again for more); with any, only these methods are shown",
    )


def _labels(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"'{pair}' is not of the form METHOD=TEXT", fix="for example --label edm=EDM")
    return dict(pair.split("=", 1) for pair in pairs)


def _no_options(_parser: argparse.ArgumentParser) -> None:
    pass


PLOTS = {
    "nfe": Plot("distance to the data against the number of network evaluations", _nfe_options, _nfe),
    "samples": Plot("samples of each method beside real data", _samples_options, _samples),
    "points": Plot("clouds of generated points beside the data", _samples_options, _points),
    "training": Plot("training loss against samples seen", _training_options, _training),
    "phase-space": Plot("three flows in phase space, with exact velocities", _no_options, _phase_space),
    "reflection": Plot("from uniform to the checkerboard, with the exact velocity", _no_options, _reflection),
}
