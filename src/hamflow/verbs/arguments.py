"""What the verbs share: from `hamflow VERB RUN` to the specification and the paths of a job."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hamflow import config
from hamflow.errors import ConfigurationError
from hamflow.pipeline import made
from hamflow.pipeline.jobs import Job, Jobs
from hamflow.pipeline.paths import BOUND, Preset, Run

LARGEST_SEED = 10**9  # as in the schema of the parameters
DEFAULTS = Path("params.yaml")
PRESETS = Path("workflow/presets")
Place = TypeVar("Place", Run, Preset)
BY_HAND = ("spec", "data", "checkpoint", "samples", "reference", "output", "metrics", "setting", "seed", "parent", "label")


def add_place(parser: argparse.ArgumentParser, form: str, *, spec: bool = False) -> None:
    """The positional argument that names a run or another part of a preset, and the parameters behind it."""
    follows = "; paths and parameters follow from it"
    parser.add_argument("place", nargs="?" if spec else None, metavar=form, help=f"{form}{follows}")
    group = parser.add_argument_group(
        "parameters", "By default those of results/PRESET/params.yaml, which the workflow writes."
    )
    group.add_argument("--params", type=Path, action="append", metavar="FILE", help="a file of parameters; again for overlays")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="training.train_kimg=8, for example")
    if spec:
        group.add_argument("--spec", metavar="JSON", help="the resolved specification of the job, in place of parameters")


def add_paths(parser: argparse.ArgumentParser, **texts: str) -> None:
    """Options that override the paths which follow from the place."""
    group = parser.add_argument_group("paths", "By default they follow from the run.")
    for name, text in texts.items():
        group.add_argument(f"--{name}", type=Path, metavar="PATH", help=text)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, help=f"integer from 0 to {LARGEST_SEED} (default: the run's, or 0)")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ... (default: auto)"
    )


def run_of(options: argparse.Namespace) -> Run | None:
    """The run that is named; a data set alone, PRESET/DATASET, stands for its bound."""
    place = options.place
    if place is None:
        return None
    return Run.parse(f"{place}/{BOUND}/seed0" if place.strip("/").count("/") == 1 else place)


def part_of(options: argparse.Namespace, form: str) -> tuple[Preset, str]:
    """(preset, name) of PRESET/NAME. Raises ConfigurationError for another form."""
    preset, _, name = options.place.partition("/")
    if not config.NAME.fullmatch(preset) or not config.NAME.fullmatch(name):
        raise ConfigurationError(f"'{options.place}' is not of the form {form}", fix=f"hamflow {options.verb} --help")
    return Preset(preset), name


def preset_of(options: argparse.Namespace) -> Preset:
    """The preset that is named. Raises ConfigurationError for what is no name."""
    if not config.NAME.fullmatch(options.place):
        raise ConfigurationError(f"'{options.place}' names no preset", why=config.WHY_NAMES, fix=config.FIX_NAMES)
    return Preset(options.place)


def parameters(options: argparse.Namespace, preset: Preset) -> config.Config:
    """The parameters of a preset: --params, else what the workflow resolved, else params.yaml with the preset's overlay."""
    if preset.parameters.exists() and not options.params:
        return config.load([preset.parameters], [*options.set, f"preset={json.dumps(preset.name)}"])
    return asked(options, preset)


def asked(options: argparse.Namespace, preset: Preset) -> config.Config:
    """The parameters that the next run of the workflow has: --params, else params.yaml with the preset's overlay."""
    overlay = PRESETS / f"{preset.name}.yaml"
    files = options.params or [DEFAULTS, *([overlay] if overlay.exists() else [])]
    return config.load(files, [*options.set, f"preset={json.dumps(preset.name)}"])


def specification(
    options: argparse.Namespace, run: Run | None, resolve: Callable[[config.Config, Run], config.Config]
) -> config.Config:
    """What determines the job, from --spec or from the parameters of the run."""
    if options.spec is not None:
        return config.parse_spec(options.spec, "" if options.verb == "discrepancy" else options.verb)
    if run is None:
        raise ConfigurationError("neither a run nor --spec is given", fix=f"hamflow {options.verb} --help")
    return resolve(parameters(options, run.preset), run)


@contextmanager
def making(options: argparse.Namespace, place: Place | None, make: Callable[[Jobs, Place], Job]) -> Iterator[None]:
    """Do the job of a place within this block: what it reads is checked before, and after it its files say what they are.

    A job of other paths, parameters or another seed than those of its place is nobody's, and is not checked.
    """
    if place is None or any(getattr(options, name, None) is not None for name in BY_HAND):
        yield
        return
    jobs = Jobs(parameters(options, place.preset if isinstance(place, Run) else place))
    with made.making(make(jobs, place), jobs.memo):
        yield


def path(options: argparse.Namespace, name: str, default: Path | None) -> Path:
    """The path of an option, or else the one that follows from the run. Raises ConfigurationError if there is neither."""
    chosen = getattr(options, name) or default
    if chosen is None:
        raise ConfigurationError(f"--{name} is not given", fix="name a run, from which it follows")
    return chosen


def seed(options: argparse.Namespace, run: Run | None) -> int:
    """--seed, or else the run's."""
    return options.seed if options.seed is not None else run.seed if run else 0


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"a seed is an integer from 0 to {LARGEST_SEED}, got {value}")
    return value
