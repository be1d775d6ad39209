"""Doing the work again, and comparing: bit for bit on the same kind of machine, within tolerances on another."""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamflow import config
from hamflow.errors import DataError, UserError
from hamflow.files import read_json, write_text
from hamflow.pipeline import records
from hamflow.pipeline.paths import CHECKPOINT, STATE, Preset, Run, is_circumstance

TREE = ("Snakefile", "profiles", "workflow", "src")  # what a run needs beside its parameters
RECORDS = ("metrics", "studies", "tournaments")  # folders of measured results
KINDS = ("samples", "reference", "tables", "figures", *RECORDS)  # folders of results that come out again
KIND = ("device", "python", "packages")  # in a record's provenance: on which kind of machine it was made
TOLERANCE = 0.1
STANDARD_ERRORS = 4.0


class VerificationError(UserError):
    """Results that did not come out again."""


@dataclass(frozen=True)
class Moved:
    """A number that differs: its file and name, both values, and whether the difference is within the tolerance."""

    file: str
    name: str
    before: float
    after: float
    tolerated: bool

    def __str__(self) -> str:
        change = f"{(self.after - self.before) / abs(self.before):+.2%}" if self.before else "was 0"
        verdict = "" if self.tolerated else "  BEYOND THE TOLERANCE"
        return f"{self.file} {self.name}: {self.before:.6g} -> {self.after:.6g} ({change}){verdict}"


@dataclass(frozen=True)
class Verdict:
    """Files compared, those whose bytes differ, the numbers that moved, and how the two machines differ (if they do)."""

    compared: int
    changed: tuple[str, ...]
    moved: tuple[Moved, ...]
    other_machine: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Same kind of machine: every byte is equal. Another: every number is within its tolerance."""
        return all(number.tolerated for number in self.moved) if self.other_machine else not self.changed


def verify(
    preset: Preset,
    parameters: config.Config,
    runs: Sequence[str] = (),
    again: Path | None = None,
    scratch: Path | None = None,
    cores: str = "all",
    tolerance: float = TOLERANCE,
) -> None:
    """Do a preset's work again, or take it from the folder `again`, compare, and print the verdict.

    Args:
        scratch: where it is done again; None: a temporary folder. Others: see `repeat` and `compare`.
    Raises:
        VerificationError: it did not come out again. DataError: there is nothing to compare.
    """
    _here(preset, runs)  # before minutes of work: is there anything to compare it with?
    if again is not None:
        verdict = compare(preset, Preset(preset.name, again), runs, tolerance)
    else:
        with tempfile.TemporaryDirectory(prefix="hamflow-verify-") as temporary:
            folder = scratch or Path(temporary)
            repeat(preset, folder, parameters, runs, cores)
            verdict = compare(preset, Preset(preset.name, folder), runs, tolerance, ended=True)
    print(as_text(verdict), flush=True)
    if not verdict.holds:
        raise VerificationError(
            f"preset '{preset.name}' did not come out again: {len(verdict.changed)} of {verdict.compared} files differ",
            why="on one kind of machine equal work gives equal bytes; on another, numbers stay within the tolerance",
            fix="see whether the results here were made by this code and these parameters: `snakemake -n`, `dvc status`",
        )


def repeat(preset: Preset, scratch: Path, parameters: config.Config, runs: Sequence[str] = (), cores: str = "all") -> None:
    """Run the workflow of a project in an empty folder, by its own Snakemake.

    Args:
        preset: of the project. scratch: receives a copy of its code, and all results.
        parameters: of the preset, resolved.
        runs: <dataset>/<method>/seed<k>; empty for all.
        cores: of Snakemake.
    Raises:
        VerificationError: the scratch folder is not empty, or the run failed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    if any(scratch.iterdir()):
        raise VerificationError(f"{scratch} is not empty", fix="give --scratch an empty folder, or compare with --again")
    _copy_code(preset.root, scratch)
    _link_sources(preset.root, scratch, parameters)
    write_text(scratch / "params.yaml", config.dump(parameters))  # all of them: an overlay could not take a key away
    targets = [target for run in runs for target in _targets(preset, run)]
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--quiet", "progress", "--config", "tracking={uri: ''}"]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(scratch.resolve() / "src")
    if subprocess.run([*command, "--", *targets], cwd=scratch, env=environment).returncode != 0:
        raise VerificationError(f"the run in {scratch} failed", fix="its message stands above")


def _copy_code(root: Path, scratch: Path) -> None:
    for name in TREE:
        if (root / name).is_dir():
            shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, scratch / name)


def _link_sources(root: Path, scratch: Path, parameters: Mapping[str, Any]) -> None:
    """Let the user's own files, which parameters name from the project's folder, be found from the scratch folder, too."""
    for entry in parameters["datasets"].values():
        path = Path(entry["options"].get("path", ""))
        link = Path(os.path.normpath(scratch / path))
        if "path" in entry["options"] and not path.is_absolute() and (root / path).exists() and not link.exists():
            if not link.is_relative_to(os.path.normpath(scratch)):
                raise VerificationError(f"{path} is not below the project", fix="give it in the parameters from the root, /...")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((root / path).resolve())


def compare(
    here: Preset, again: Preset, runs: Sequence[str] = (), tolerance: float = TOLERANCE, ended: bool = False
) -> Verdict:
    """Compare every artefact that equal work must give again: checkpoints, samples, metrics, tables, figures.

    On another kind of machine (processor capability, threads, versions; from the records) only the measured numbers are
    compared: |after - before| <= max(tolerance |before|, 4 standard errors of the metric, where it has one).

    Args:
        here: with its results. again: the same where they were made again.
        runs: <dataset>/<method>/seed<k>; empty for all.
        tolerance: relative.
        ended: the work in `again` is known to be complete: what is missing there is a leftover here.
    Raises:
        DataError: there is nothing to compare, or a file is missing on one side.
    """
    names = _here(here, runs)
    there = set(_artefacts(again, runs))
    leftovers = [name for name in names if name not in there]
    if ended and leftovers:
        raise DataError(
            f"{', '.join(leftovers)}: here, but equal work does not make it",
            fix="left over from other parameters or switched off: delete it",
        )
    if set(names) != there:
        odd = sorted(set(names) ^ there)[0]
        raise DataError(f"{odd} is {'missing there' if odd in names else 'missing here'}", fix="let the run end, then verify")
    changed = tuple(name for name in names if (here.root / name).read_bytes() != (again.root / name).read_bytes())
    measured = [name for name in names if _is_record(name)]
    pairs = [(name, read_json(here.root / name), read_json(again.root / name)) for name in measured]
    moved = tuple(number for pair in pairs for number in _moved(*pair, tolerance))
    return Verdict(len(names), changed, moved, _differences_of_machines(pairs))


def as_text(verdict: Verdict) -> str:
    """The verdict in words, a line a fact."""
    lines = [f"{verdict.compared} files compared, {len(verdict.changed)} differ"]
    lines += [f"another kind of machine: {line}" for line in verdict.other_machine]
    shown = [str(number) for number in sorted(verdict.moved, key=lambda number: (number.tolerated, number.file, number.name))]
    lines += shown or (["no number moved"] if verdict.changed else [])
    if verdict.changed and not verdict.other_machine:
        lines += [f"differs: {name}" for name in verdict.changed]
    lines.append("holds: every byte is equal" if not verdict.changed else "holds" if verdict.holds else "does not hold")
    return "\n".join(lines)


def _here(preset: Preset, runs: Sequence[str]) -> list[str]:
    """The names of `_artefacts`, of which there must be metrics."""
    names = sorted(_artefacts(preset, runs))
    if not any(_is_record(name) for name in names):
        what = f"{', '.join(runs)} in preset '{preset.name}'" if runs else f"preset '{preset.name}'"
        raise DataError(f"there are no results of {what} here", fix="run it, or fetch it: `make restore`")
    return names


def _artefacts(preset: Preset, runs: Sequence[str]) -> Iterable[str]:
    """Names, relative to the root, of the files that equal work gives again."""
    places = [Run.parse(f"{preset.name}/{run}", preset.root) for run in runs]
    if places:
        found = [path for run in places for folder in (run.samples, run.metrics) for path in folder.glob("*")]
        found += [run.checkpoint for run in places]
    else:
        folders = [preset.results / kind for kind in KINDS]
        found = [path for folder in folders for path in folder.rglob("*") if STATE not in path.relative_to(folder).parts]
        found += preset.checkpoints.rglob(CHECKPOINT)
    for path in found:
        if path.is_file() and not path.name.startswith(".") and not is_circumstance(path.name):
            yield path.relative_to(preset.root).as_posix()


def _is_record(name: str) -> bool:
    """Whether this is a measured result."""
    return name.endswith(".json") and Path(name).parts[2] in RECORDS


def _moved(name: str, before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float) -> Iterable[Moved]:
    """The metrics, or in other records the numbers, that differ."""
    if "metrics" in before:
        for metric, row in before["metrics"].items():
            error = STANDARD_ERRORS * (row.get("standard_error") or 0.0)
            yield from _compared(name, metric, row["value"], after["metrics"][metric]["value"], tolerance, error)
        return
    there = dict(_numbers(after))
    for key, value in _numbers(before):
        yield from _compared(name, key, value, there.get(key, math.nan), tolerance, 0.0)


def _compared(file: str, name: str, before: Any, after: Any, tolerance: float, error: float) -> Iterable[Moved]:
    if before == after:
        return
    numbers = [math.nan if value is None else float(value) for value in (before, after)]
    within = abs(numbers[1] - numbers[0]) <= max(tolerance * abs(numbers[0]), error)
    yield Moved(file, name, numbers[0], numbers[1], within)


def _numbers(tree: Any, prefix: str = "") -> Iterable[tuple[str, float]]:
    """Every number of nested JSON but those of `provenance`, by its dotted path."""
    entries = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        path = f"{prefix}{key}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield path, value
        elif path != "provenance":
            yield from _numbers(value, f"{path}.")


def _differences_of_machines(pairs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> tuple[str, ...]:
    lines = set()
    for _, before, after in pairs:
        for key in KIND:
            here, there = (json.dumps(record.get("provenance", {}).get(key), sort_keys=True) for record in (before, after))
            if here != there:
                lines.add(f"{key} {here} -> {there}")
    return tuple(sorted(lines))


def _targets(preset: Preset, run: str) -> list[str]:
    """The metrics of one run: what Snakemake is to make again."""
    found = records.find([Run.parse(f"{preset.name}/{run}", preset.root).metrics])
    if not found:
        raise DataError(f"there are no metrics of {run} in {preset.results}", fix="name a run that there is, or run it first")
    return [path.relative_to(preset.root).as_posix() for path in found]
