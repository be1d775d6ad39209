"""back-fill MLflow from the files of a preset: one run a trained model, with curves, metrics, provenance, tables and figures"""

import argparse
from pathlib import Path

from hamflow.errors import ConfigurationError
from hamflow.pipeline.paths import Preset
from hamflow.tracking.store import DEFAULT_EXPERIMENT, DEFAULT_URI
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("place", nargs="?", metavar="PRESET", help="publishing again changes nothing")
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="holds results/, checkpoints/, data/ (default: .)"
    )
    parser.add_argument(
        "--uri", default=DEFAULT_URI, help=f"MLflow's store (default {DEFAULT_URI}; MLFLOW_TRACKING_URI overrides)"
    )
    parser.add_argument(
        "--experiment",
        default=DEFAULT_EXPERIMENT,
        help=f"MLflow's experiment (default {DEFAULT_EXPERIMENT}; MLFLOW_EXPERIMENT_NAME overrides)",
    )
    parser.add_argument(
        "--init", action="store_true", help="only create the store, if it is SQLite and not there: once, under a lock"
    )


def run(options: argparse.Namespace) -> None:
    from hamflow.tracking import init_store, publish
    from hamflow.tracking.store import resolve_uri, shown

    if options.init:
        made = init_store(options.uri)
        print(f"MLflow: {shown(resolve_uri(options.uri))} {'is made' if made else 'has nothing to be made'}")
        return
    if options.place is None:
        raise ConfigurationError("`hamflow publish` needs a preset (or --init alone)", fix="hamflow publish quickstart")
    preset = Preset(arguments.preset_of(options).name, options.root)
    print(f"MLflow: {publish(preset, options.uri, options.experiment)}")
