"""The verb `publish` of the command line."""

import argparse
from pathlib import Path

from hamflow.errors import ConfigurationError

DEFAULT_URI, DEFAULT_EXPERIMENT = "sqlite:///mlflow.db", "hamflow"


def add_arguments(subparsers) -> None:
    """Mount `publish` on the subparsers of `hamflow`; `args.run` runs it."""
    parser = subparsers.add_parser(
        "publish",
        help="back-fill MLflow from the files of a preset",
        description="Give MLflow one run for each trained model of a preset, with its curves, metrics, "
        "provenance, tables and figures. Publishing again changes nothing.",
    )
    parser.add_argument("--results", "--preset-results", dest="results", type=Path, metavar="DIR", help="results/<preset>")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="checkpoints/<preset>")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the data sets (default data)")
    parser.add_argument(
        "--uri",
        default=DEFAULT_URI,
        help=f"MLflow's store (default {DEFAULT_URI}; MLFLOW_TRACKING_URI overrides)",
    )
    parser.add_argument(
        "--experiment",
        default=DEFAULT_EXPERIMENT,
        help=f"MLflow's experiment (default {DEFAULT_EXPERIMENT}; MLFLOW_EXPERIMENT_NAME overrides)",
    )
    parser.add_argument(
        "--init", action="store_true", help="only create the store, if it is SQLite and not there: once, under a lock"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    from hamflow.tracking import init_store, publish
    from hamflow.tracking.store import resolve_uri, shown

    if args.init:
        made = init_store(args.uri)
        print(f"MLflow: {shown(resolve_uri(args.uri))} {'is made' if made else 'has nothing to be made'}")
        return
    if args.results is None or args.checkpoints is None:
        raise ConfigurationError(
            "`hamflow publish` needs --results and --checkpoints (or --init alone)",
            fix="hamflow publish --results results/quickstart --checkpoints checkpoints/quickstart",
        )
    print(f"MLflow: {publish(args.results, args.checkpoints, args.uri, args.experiment, args.data)}")
