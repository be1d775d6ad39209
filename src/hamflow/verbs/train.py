"""train one method on one data set; resumes by itself; SIGTERM stops it (exit code 75)"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.files import exclusive, load_metadata
from hamflow.pipeline.paths import CHECKPOINT, CIRCUMSTANCES, LOG, Run
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET/METHOD/seedK", spec=True)
    arguments.add_paths(parser, data="folder of the data set", output="folder of the checkpoint")
    arguments.add_seed(parser)
    arguments.add_device(parser)
    parser.add_argument(
        "--parent",
        action="append",
        metavar="ROLE=PATH",
        help="the checkpoint of a method that this one starts from (default: the run's of the same data and seed)",
    )
    parser.add_argument("--keep", action="store_true", help="keep links to the result in state/, from which it can be put back")


def run(options: argparse.Namespace) -> None:
    place = arguments.run_of(options)
    spec = arguments.specification(options, place, lambda c, r: config.training_spec(c, r.dataset, r.method))
    output = arguments.path(options, "output", place.checkpoints if place else None)
    data = arguments.path(options, "data", place.data if place else None)
    seed = arguments.seed(options, place)
    parents = _parents(options, spec, place)
    if os.environ.get("RANK", "0") != "0":  # one of the processes that torchrun started, and not the first
        from hamflow.verbs._training import follow

        _stoppable(lambda: follow(spec, data, seed, output, options.device, parents))
        return
    with exclusive(output / ".training") as waited:  # before torch is imported, which takes two seconds
        if waited and _is_trained(output, spec, seed):
            from hamflow.verbs._training import dismiss

            dismiss()
            print(f"{output} was trained meanwhile by the other process", flush=True)
        else:
            with arguments.making(options, place, lambda jobs, run: jobs.train(*run.key)):
                _stoppable(lambda: _train(spec, data, seed, output, options, parents))


def _stoppable(work: Callable[[], object]) -> None:
    """Exit with the code of its own that says: stopped, the state is saved."""
    from hamflow.training.interruption import EXIT_CODE, Interrupted

    try:
        work()
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        sys.exit(EXIT_CODE)


def _parents(options: argparse.Namespace, spec: config.Config, place: Run | None) -> dict[str, Path]:
    """The checkpoints that a training starts from, by their roles."""
    roles = spec.get("parents", {})
    found = {role: replace(place, method=method).checkpoint for role, method in roles.items()} if place else {}
    for text in options.parent or []:
        role, given, path = text.partition("=")
        if role not in roles or not given:
            known = ", ".join(f"{role}=PATH" for role in roles) or "none, for the method starts from no other"
            raise ConfigurationError(f"--parent {text} names no role of the method", fix=f"known: {known}")
        found[role] = Path(path)
    return found


def _is_trained(output: Path, spec: config.Config, seed: int) -> bool:
    if not all((output / name).exists() for name in (CHECKPOINT, LOG, CIRCUMSTANCES)):
        return False
    metadata = load_metadata(output / CHECKPOINT)
    return (metadata.get("spec"), metadata.get("seed")) == (spec, seed)


def _train(
    spec: config.Config, data: Path, seed: int, output: Path, options: argparse.Namespace, parents: dict[str, Path]
) -> None:
    """Train, and pass on every report to MLflow where there is a store."""
    from hamflow.tracking import RunStream
    from hamflow.training.interruption import Interrupted
    from hamflow.verbs._training import train

    place = Run.of(output)
    stream = RunStream.of_training(
        preset=place.preset.name if place else "",
        dataset=spec["dataset"],
        method=spec["method"],
        seed=seed,
        spec=spec,
        uri=os.environ.get("MLFLOW_TRACKING_URI", ""),
    )
    with stream:
        try:
            train(spec, data, seed, output, options.device, stream.log, options.keep, parents)
        except Interrupted:
            stream.close("KILLED")
            raise
