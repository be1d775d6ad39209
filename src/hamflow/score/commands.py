"""The verb `hamflow score`: the experiments of Hamiltonian score matching, and the discrepancy of a trained
model."""

import argparse
import time
from pathlib import Path
from typing import Any

from hamflow.config import parse_spec
from hamflow.studies import KINDS

FIGURE = "figure of a result, by its kind"
TABLE = "table of a result of the kind `comparison`"
MODEL = "discrepancy of the score that a trained model implies at a few noise levels"


def add_arguments(verbs: Any) -> None:
    """Mount the verb."""
    verb = verbs.add_parser("score", help="Hamiltonian score matching and its discrepancy", description=__doc__)
    kinds = verb.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, text in KINDS.items():
        one = kinds.add_parser(kind, help=text, description=text)
        one.add_argument(
            "--spec", default="{}", help="JSON of the keys that differ from the defaults; the result holds them all"
        )
        one.add_argument("--output", type=Path, required=True, help="the result, a .json")
        _values_argument(one)
        one.set_defaults(run=_experiment)
    plot = kinds.add_parser("plot", help=FIGURE, description=FIGURE)
    plot.add_argument("--input", type=Path, required=True, help="a result of this verb, .json")
    plot.add_argument("--output", type=Path, required=True, help="the .png; a .pdf beside it")
    plot.set_defaults(run=_plot)
    table = kinds.add_parser("table", help=TABLE, description=TABLE)
    table.add_argument("--input", type=Path, required=True, help="a result of the kind `comparison`, .json")
    table.add_argument("--output", type=Path, required=True, help="the .csv; a .md beside it")
    table.set_defaults(run=_table)
    model = kinds.add_parser("model", help=MODEL, description=MODEL)
    model.add_argument("--spec", default="{}", help="JSON of the keys that differ from the defaults")
    model.add_argument("--checkpoint", type=Path, required=True, help="model.safetensors")
    model.add_argument("--data", type=Path, required=True, help="folder of the data set that it was trained on")
    model.add_argument("--output", type=Path, required=True, help="the metrics, hsd.json")
    model.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ...")
    _values_argument(model)
    model.set_defaults(run=_model)


def _values_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--values", type=Path, help="the same without commit, host and seconds: bytes that repeat")


def _experiment(options: argparse.Namespace) -> None:
    from hamflow import studies
    from hamflow.pipeline.provenance import provenance, write_record
    from hamflow.runtime import configure, describe_device

    configure("cpu")  # networks of a few thousand weights: a GPU would only wait
    began = time.perf_counter()
    result = studies.run(options.kind, parse_spec(options.spec))
    took = {"training": result.pop("training", {}), "wall_seconds": time.perf_counter() - began}
    facts = provenance(device=describe_device("cpu"), **took)
    write_record(options.output, {**result, "provenance": facts}, options.values)
    print(f"{options.output} written", flush=True)


def _plot(options: argparse.Namespace) -> None:
    from hamflow.report.score import plot_score

    plot_score(options.input, options.output)


def _table(options: argparse.Namespace) -> None:
    from hamflow.report.score import tabulate_comparison

    tabulate_comparison(options.input, options.output)


def _model(options: argparse.Namespace) -> None:
    from hamflow.runtime import configure
    from hamflow.score.model import evaluate_checkpoint

    device = configure(options.device)
    spec = parse_spec(options.spec)
    evaluate_checkpoint(spec, options.checkpoint, options.data, options.output, device, options.values)
    print(f"{options.output} written", flush=True)
