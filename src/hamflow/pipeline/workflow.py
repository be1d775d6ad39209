"""What the workflow does beside its jobs: reads the parameters, writes them for the jobs, keeps its folders in order."""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hamflow import config
from hamflow.errors import ConfigurationError, UserError
from hamflow.files import write_text
from hamflow.pipeline import provenance
from hamflow.pipeline.jobs import Job
from hamflow.pipeline.paths import CHECKPOINT, DATA, STATE, Preset


def checked(files: Iterable[Path], by_hand: Mapping[str, Any]) -> config.Config:
    """The parameters, validated; a user's mistake ends Snakemake with its paragraph and exit code 2.

    Args:
        files: params.yaml, and those of `--configfile`. by_hand: what `--config` gave.
    """
    try:
        defaults, *overlays = files
        complete = config.resolve([defaults, *overlays], by_hand)
        refuse_absent_originals(complete)
        refuse_changed_data(complete, defaults)
        refuse_what_dvc_does_not_see(complete, os.environ.get("DVC_STAGE"))
        return complete
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def refuse_absent_originals(parameters: config.Config) -> None:
    """Raise ConfigurationError for a data set whose originals are not there, and of which nothing was prepared."""
    for name in parameters["run"]["datasets"]:
        path = parameters["datasets"][name]["options"].get("path")
        if path and not Path(path).expanduser().exists() and not Preset(parameters["preset"]).manifest(name).exists():
            raise ConfigurationError(
                f"`datasets.{name}.options.path` = {path!r}: there is no such folder or archive",
                fix="the path is looked up from the working directory",
            )


def refuse_changed_data(parameters: config.Config, defaults: Path) -> None:
    """data/<dataset> is shared by all presets, so none may define a data set otherwise than params.yaml or another preset.

    Args:
        defaults: params.yaml. Beside it are compared the overlays in workflow/presets, and the presets that have results.
    """
    shared = config.read([defaults]).get("datasets", {})
    _refuse_if_defined_otherwise(parameters, shared, defaults, f"change it in {defaults}, or give it another name")
    overlays = sorted(defaults.parent.glob("workflow/presets/*.yaml"))
    for file in [*overlays, *sorted(Path().glob("results/*/params.yaml"))]:
        other = config.read([file])
        if other.get("preset", file.stem) != parameters["preset"]:
            names = other.get("datasets", {}).keys() & other.get("run", {}).get("datasets", other.get("datasets", {}))
            own = {name: other["datasets"][name] for name in (names - shared.keys()) & set(parameters["run"]["datasets"])}
            fix = f"give one of them another name, or remove {file.parent} if it is no longer wanted"
            _refuse_if_defined_otherwise(parameters, own, file, fix)


def _refuse_if_defined_otherwise(parameters: config.Config, entries: Mapping[str, Any], file: Path, fix: str) -> None:
    for name in entries.keys() & parameters["datasets"].keys():
        for key, default in (("source", None), ("options", {})):
            here, there = parameters["datasets"][name][key], entries[name].get(key, default)
            if here != there:
                raise ConfigurationError(
                    f"`datasets.{name}.{key}` is {here} here, but {there} in {file}",
                    why=f"data/{name} is shared by all presets: their results would silently be of different data",
                    fix=fix,
                )


def refuse_what_dvc_does_not_see(parameters: config.Config, stage: str | None) -> None:
    """Where DVC runs the workflow, the data sets must be among its files, and the user's own images among its dependencies.

    Args:
        stage: what DVC calls it, `dvc.yaml:data` or `data`; None: DVC does not run this.
    Raises:
        ConfigurationError: DVC would take results of other images for good.
    """
    file = Path("dvc.yaml")
    if not stage or not file.exists():
        return
    why = "DVC would call the results up to date when the images are others"
    again = "and start `dvc repro` again"
    names = parameters["run"]["datasets"]
    known = [Path(one).resolve() for one in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]["data"].get("deps", [])]
    for name in names:
        path = parameters["datasets"][name]["options"].get("path")
        place = Path(path or ".").expanduser().resolve()
        if path and not any(place.is_relative_to(one) for one in known):
            what = f"the stage `data` of {file} does not depend on {path}, of which '{name}' is prepared"
            raise ConfigurationError(what, why=why, fix=f"add the line `- {path}` to `deps` of that stage, {again}")
    manifests = {str(Preset(parameters["preset"]).manifest(name)): name for name in names}
    ask = subprocess.run([sys.executable, "-m", "dvc", "check-ignore", *manifests], capture_output=True, text=True)
    if hidden := [line for path in ask.stdout.splitlines() if (line := f"!/{DATA}/{manifests[path]}")]:
        what = f".dvcignore hides {hidden[0][2:]} from DVC"
        raise ConfigurationError(what, why=why, fix=f"add the line `{hidden[0]}` below `/{DATA}/*` there, {again}")


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


def say_if_no_commit() -> None:
    """One line on the terminal, before the jobs, where git does not tell the commit: their provenance will lack it."""
    if provenance.source_version()["git_commit"] is None:
        fix = "git init, or as another owner of the files: git config --global --add safe.directory PATH"
        print(f"git tells no commit of this code, so that no result will name one ({fix})", file=sys.stderr)


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
