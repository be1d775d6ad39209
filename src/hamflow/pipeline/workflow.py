"""What the workflow does beside its jobs: reads the parameters, writes them for the jobs, keeps its folders in order."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.errors import ConfigurationError, UserError
from hamflow.files import write_text
from hamflow.pipeline.jobs import Job
from hamflow.pipeline.paths import CHECKPOINT, DATA, STATE, Preset

DEFAULTS = Path("params.yaml")


def checked(files: Iterable[Path], by_hand: Mapping[str, Any]) -> config.Config:
    """The parameters, validated; a user's mistake ends Snakemake with its paragraph and exit code 2.

    Args:
        files: of `--configfile`. by_hand: what `--config` gave.
    """
    try:
        complete = config.resolve([DEFAULTS, *files], by_hand)
        refuse_changed_data(complete)
        return complete
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def refuse_changed_data(parameters: config.Config) -> None:
    """data/<dataset> is shared by all presets, so an overlay may add data sets but not redefine one of the defaults."""
    defaults = config.read([DEFAULTS])["datasets"]
    for name in defaults.keys() & parameters["datasets"].keys():
        for key, default in (("source", None), ("options", {})):
            here, there = parameters["datasets"][name][key], defaults[name].get(key, default)
            if here != there:
                raise ConfigurationError(
                    f"`datasets.{name}.{key}` is {here} here, but {there} in {DEFAULTS}",
                    why=f"data/{name} is shared by all presets: their results would silently be of different data",
                    fix=f"change it in {DEFAULTS}, or add an entry of another name to `datasets` and to `run.datasets`",
                )


def write_parameters(parameters: config.Config, preset: Preset) -> None:
    """Write results/<preset>/params.yaml, from which the jobs read them, unless it holds the same."""
    text = config.dump(parameters)
    with contextlib.suppress(OSError):
        if preset.parameters.read_text(encoding="utf-8") == text:
            return
    write_text(preset.parameters, text)


def forget_kept_checkpoints(preset: Preset) -> None:
    """Drop the links that `hamflow train --keep` made, once Snakemake itself has seen the trainings end."""
    for kept in preset.checkpoints.glob(f"*/*/seed*/{STATE}/*/{CHECKPOINT}"):
        shutil.rmtree(kept.parent, ignore_errors=True)
        with contextlib.suppress(OSError):  # other states lie beside it
            kept.parent.parent.rmdir()


def place_of_copies(output: str, preset: Preset) -> list[str]:
    """Where a job's files are copies, since nodes share no file system: [change to their folder, the parameters]; else empty.

    Args:
        output: a file that the job writes, as Snakemake gives it to the job.
    """
    tops = (f"{top}/" for top in (preset.results, preset.checkpoints, DATA))
    root = output.rpartition(next(top for top in tops if top in output))[0]
    return [f"env -C {shlex.quote(root)} ", f' --params "$PWD"/{preset.parameters}'] if root else ["", ""]


def set_environment(tracking: Mapping[str, str], remote: bool) -> bool:
    """What the jobs find around them: `hamflow` beside this Python, and MLflow's store. Returns whether there is a store."""
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    if tracking["uri"]:
        os.environ.setdefault("MLFLOW_TRACKING_URI", tracking["uri"])
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", tracking["experiment"])
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    if remote and store.startswith("sqlite:"):  # its locks do not hold between nodes: `publish` fills the store afterwards
        del os.environ["MLFLOW_TRACKING_URI"]
    return bool(store)


def let_stamps_decide(workflow: Any) -> None:
    """Keep Snakemake from deciding by its records or by times of change, which bytes from DVC, git or elsewhere do not have.

    It still makes what is missing, and what follows from what it makes.
    """
    from snakemake import io

    async def is_newer(self: object, time: float) -> bool:
        return False

    workflow.dag_settings.rerun_triggers = frozenset()
    io._IOFile.is_newer = is_newer


def forced(names: Collection[str]) -> Callable[[Job], bool]:
    """Whether a job is among the rules and files of `--forcerun`."""

    def is_forced(job: Job) -> bool:
        files = {str(path) for path in job.outputs} & set(names)
        return bool(files) or any(name == job.rule or name.startswith(f"{job.rule}_") for name in names)

    return is_forced
