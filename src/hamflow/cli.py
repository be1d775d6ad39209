"""The command line: `hamflow VERB`. Exit 0 done, 2 the user's mistake (one paragraph), 75 stopped by SIGTERM, 1 a bug."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hamflow import __version__, config, runtime
from hamflow.errors import ConfigurationError, UserError
from hamflow.files import exclusive, load_metadata

EPILOG = """A job's specification comes either as --spec JSON, which is how the workflow passes it, or from
--params FILE (again for each overlay) with --dataset and --method, which resolves the same one."""

BROKEN_PIPE = 141  # as a shell calls the end by SIGPIPE
LARGEST_SEED = 10**9  # as in the schema of the parameters

# verbs whose arguments and work live beside what they do
MOUNTED = (
    "hamflow.report.commands",
    "hamflow.tracking.commands",
    "hamflow.score.commands",
    "hamflow.pipeline.trace",
    "hamflow.pipeline.verify",
)

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than this shell or file system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
}
PATH_ERRORS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "it is there already, and no folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder, not a file",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    runtime.pin()
    try:
        options = parser().parse_args(arguments)
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's end would meet it again
        return BROKEN_PIPE  # not 0: the work may not be done
    except OSError as error:
        if error.errno in PATH_ERRORS and error.filename:
            print(f"PathError: {error.filename}: {PATH_ERRORS[error.errno]}", file=sys.stderr)
            print("  Fix: look at the paths that were given.", file=sys.stderr)
            return 2
        if error.errno not in DISK_ERRORS:
            raise
        print(f"DiskError: {DISK_ERRORS[error.errno]}: {error.filename or 'while writing'}", file=sys.stderr)
        print("  Nothing half-written was left behind: files appear only when complete.", file=sys.stderr)
        print("  Fix: make room or change the permission, and start the same command again; it resumes.", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    root = argparse.ArgumentParser(prog="hamflow", description="Hamiltonian generative modelling.", epilog=EPILOG)
    root.add_argument("--version", action="version", version=f"hamflow {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_prepare(verbs)
    _add_train(verbs)
    _add_sample(verbs)
    _add_evaluate(verbs)
    for module in MOUNTED:
        import_module(module).add_arguments(verbs)
    _add_doctor(verbs)
    return root


def _add_prepare(verbs: Any) -> None:
    verb = _verb(verbs, "prepare", _prepare, "write a data set as arrays with a manifest")
    _spec_arguments(verb)
    verb.add_argument("--output", type=Path, help="folder of the data set (default: data/<dataset>)")


def _prepare(options: argparse.Namespace) -> None:
    from hamflow import data

    spec = _spec(options, lambda c: config.dataset_spec(c, options.dataset))
    data.prepare(spec, options.output or Path("data") / spec["name"])


def _add_train(verbs: Any) -> None:
    verb = _verb(verbs, "train", _train, "train one method on one data set; resumes by itself; SIGTERM stops it (exit code 75)")
    _spec_arguments(verb, method=True)
    _job_arguments(verb)
    verb.add_argument("--output", type=Path, required=True, help="checkpoints/<preset>/<dataset>/<method>/seed<k>")
    verb.add_argument("--keep", action="store_true", help="keep links to the result in state/, from which it can be put back")


def _train(options: argparse.Namespace) -> None:
    spec = _spec(options, lambda c: config.training_spec(c, options.dataset, options.method))
    with exclusive(options.output / ".training") as waited:
        if waited and _is_trained(options, spec):
            print(f"{options.output} was trained meanwhile by the other process", flush=True)
        else:
            _train_alone(options, spec)


def _is_trained(options: argparse.Namespace, spec: config.Config) -> bool:
    made = [options.output / name for name in ("model.safetensors", "train.jsonl", "run.json")]
    if not all(path.exists() for path in made):
        return False
    metadata = load_metadata(made[0])
    return (metadata.get("spec"), metadata.get("seed")) == (spec, options.seed)


def _train_alone(options: argparse.Namespace, spec: config.Config) -> None:
    from hamflow.tracking import RunStream
    from hamflow.tracking.commands import DEFAULT_EXPERIMENT
    from hamflow.tracking.records import preset_of
    from hamflow.training import train
    from hamflow.training.interruption import EXIT_CODE, Interrupted

    stream = RunStream.of_training(
        preset=preset_of(options.output),
        dataset=spec["dataset"],
        method=spec["method"],
        seed=options.seed,
        spec=spec,
        uri=os.environ.get("MLFLOW_TRACKING_URI", ""),
        experiment=DEFAULT_EXPERIMENT,
    )
    with stream:
        try:
            train(spec, options.data, options.seed, options.output, options.device, stream.log, options.keep)
        except Interrupted as interruption:
            print(interruption, file=sys.stderr)
            stream.close("KILLED")
            sys.exit(EXIT_CODE)


def _add_sample(verbs: Any) -> None:
    verb = _verb(verbs, "sample", _sample, "draw samples at every (sampler, NFE) of the specification")
    _spec_arguments(verb, method=True)
    _job_arguments(verb)
    verb.add_argument("--checkpoint", type=Path, required=True, help="model.safetensors")
    verb.add_argument("--output", type=Path, required=True, help="folder of <sampler>-nfe<n>.npy and .json")


def _sample(options: argparse.Namespace) -> None:
    from hamflow.sampling.jobs import sample

    spec = _spec(options, lambda c: config.sampling_spec(c, options.dataset, options.method))
    sample(spec, options.checkpoint, options.data, options.seed, options.output, options.device)


def _add_evaluate(verbs: Any) -> None:
    text = "metrics of samples; without --samples: the reference statistics of the data, and the bound that real data reach"
    verb = _verb(verbs, "evaluate", _evaluate, text)
    _spec_arguments(verb, method=True)
    verb.add_argument("--data", type=Path, required=True, help="folder of the data set")
    verb.add_argument("--reference", type=Path, required=True, help="statistics of the data set, .npz")
    verb.add_argument("--samples", type=Path, help="folder that `hamflow sample` wrote")
    verb.add_argument("--output", type=Path, help="folder of the metrics JSON, one a setting")
    verb.add_argument("--values", type=Path, help="folder of the same without commit, host and seconds: bytes that repeat")
    _device_argument(verb)


def _evaluate(options: argparse.Namespace) -> None:
    from hamflow.metrics.jobs import build_reference, evaluate

    spec = _spec(options, lambda c: config.evaluation_spec(c, options.dataset, options.method))
    if options.samples is None:
        build_reference(spec, options.data, options.reference, options.output, options.values, options.device)
    elif options.output is None:
        raise ConfigurationError("--samples needs --output", fix="--output results/<preset>/metrics/...")
    else:
        folders = (options.data, options.reference, options.samples, options.output, options.values)
        evaluate(spec, *folders, options.device)


def _add_doctor(verbs: Any) -> None:
    verb = _verb(verbs, "doctor", _doctor, "check the installation, the device and the parameters")
    verb.add_argument("--params", type=Path, action="append", metavar="FILE", help="parameter files to check")


def _doctor(options: argparse.Namespace) -> None:
    from hamflow.pipeline.doctor import examine

    examine(options.params or [])


def _verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(run=run)
    return verb


def _spec_arguments(verb: argparse.ArgumentParser, method: bool = False) -> None:
    group = verb.add_argument_group("specification", EPILOG)
    group.add_argument("--spec", metavar="JSON", help="the resolved specification")
    group.add_argument(
        "--params", type=Path, action="append", metavar="FILE", help="parameters; again for overlays (default: params.yaml)"
    )
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="training.train_kimg=8, for example")
    group.add_argument("--dataset", help="a key of `datasets`")
    group.add_argument("--method", help="a key of `methods`" if method else argparse.SUPPRESS)


def _job_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="folder of the data set")
    verb.add_argument("--seed", type=_seed, default=0, help="integer from 0 to 10^9 (default: 0)")
    _device_argument(verb)


def _device_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ... (default: auto)")


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"a seed is an integer from 0 to {LARGEST_SEED}, got {seed}")
    return seed


def _spec(options: argparse.Namespace, resolve: Callable[[config.Config], config.Config]) -> config.Config:
    """The specification of a job, from --spec or from --params."""
    if options.spec is not None:
        return config.parse_spec(options.spec, options.verb)
    if not options.dataset:
        raise ConfigurationError("neither --spec nor --dataset is given", fix="--params params.yaml --dataset digits")
    return resolve(config.load(options.params or [Path("params.yaml")], options.set))


if __name__ == "__main__":
    sys.exit(main())
