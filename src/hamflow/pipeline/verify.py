"""Doing the work again, and comparing: bit for bit on the same kind of machine, within tolerances on another."""

import argparse
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

from hamflow.config import load
from hamflow.errors import DataError, UserError
from hamflow.files import read_json

TREE = ("Snakefile", "params.yaml", "profiles", "workflow", "src")  # what a run needs
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


def add_arguments(verbs: Any) -> None:
    """Mount the verb `verify`."""
    text = "do a preset's work again in an empty folder, and compare every file with what is here"
    verb = verbs.add_parser("verify", help=text, description=f"{text}. Exit code 2 if it did not come out again.")
    verb.add_argument("--configfile", type=Path, action="append", default=[], help="overlay of the preset (default: none)")
    verb.add_argument(
        "--only", action="append", default=[], metavar="DATASET/METHOD/seedK", help="only this run; again for more"
    )
    verb.add_argument(
        "--again", type=Path, metavar="DIR", help="a folder in which the work was already done again; do not run it"
    )
    verb.add_argument("--scratch", type=Path, metavar="DIR", help="do it again here, and keep it (default: a temporary folder)")
    verb.add_argument("--cores", default="all", help="of Snakemake (default: all); changes no number")
    verb.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"on another kind of machine: largest relative change of a metric (default: {TOLERANCE:g}), where it exceeds "
        f"{STANDARD_ERRORS:g} of its standard errors",
    )
    verb.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    root = Path()
    preset = load([root / "params.yaml", *options.configfile])["preset"]
    runs = _checked_runs(options.only)
    _here(root, preset, runs)  # before minutes of work: is there anything to compare it with?
    if options.again is not None:
        verdict = compare(root, options.again, preset, runs, options.tolerance)
    else:
        with tempfile.TemporaryDirectory(prefix="hamflow-verify-") as temporary:
            scratch = options.scratch or Path(temporary)
            repeat(root, scratch, preset, options.configfile, runs, options.cores)
            verdict = compare(root, scratch, preset, runs, options.tolerance, ended=True)
    print(told(verdict), flush=True)
    if not verdict.holds:
        raise VerificationError(
            f"preset '{preset}' did not come out again: {len(verdict.changed)} of {verdict.compared} files differ",
            why="on one kind of machine equal work gives equal bytes; on another, numbers stay within the tolerance",
            fix="see whether the results here were made by this code and these parameters: `snakemake -n`, `dvc status`",
        )


def repeat(
    root: Path, scratch: Path, preset: str, overlays: Sequence[Path] = (), runs: Sequence[str] = (), cores: str = "all"
) -> None:
    """Run the workflow of `root` in an empty folder, by its own Snakemake.

    Args:
        root: the project. scratch: receives a copy of its code, and all results.
        overlays: parameter files beside params.yaml. runs: <dataset>/<method>/seed<k>; empty for all.
        cores: of Snakemake.
    Raises:
        VerificationError: the scratch folder is not empty, or the run failed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    if any(scratch.iterdir()):
        raise VerificationError(f"{scratch} is not empty", fix="give --scratch an empty folder, or compare with --again")
    _copy_code(root, scratch)
    _link_sources(root, scratch, load([root / "params.yaml", *overlays]))
    targets = [target for run in runs for target in _targets(root, preset, run)]
    command = [sys.executable, "-m", "snakemake", "--cores", cores, "--quiet", "progress", "--config", "tracking={uri: ''}"]
    command += ["--configfile", *(str(path.resolve()) for path in overlays)] if overlays else []
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


def _link_sources(root: Path, scratch: Path, config: Mapping[str, Any]) -> None:
    """Let the user's own files, which parameters name from the project's folder, be found from the scratch folder, too."""
    for entry in config["datasets"].values():
        path = Path(entry["options"].get("path", ""))
        link = Path(os.path.normpath(scratch / path))
        if "path" in entry["options"] and not path.is_absolute() and (root / path).exists() and not link.exists():
            if not link.is_relative_to(os.path.normpath(scratch)):
                raise VerificationError(f"{path} is not below the project", fix="give it in the parameters from the root, /...")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((root / path).resolve())


def compare(
    root: Path, again: Path, preset: str, runs: Sequence[str] = (), tolerance: float = TOLERANCE, ended: bool = False
) -> Verdict:
    """Compare every artefact that equal work must give again: checkpoints, samples, values, tables, figures.

    On another kind of machine (processor capability, threads, versions; from the records) only the measured numbers are
    compared: |after - before| <= max(tolerance |before|, 4 standard errors of the metric, where it has one).

    Args:
        root: the project, with its results. again: the folder in which they were made again.
        runs: <dataset>/<method>/seed<k>; empty for all.
        tolerance: relative.
        ended: the work in `again` is known to be complete: what is missing there is a leftover here.
    Raises:
        DataError: there is nothing to compare, or a file is missing on one side.
    """
    names = _here(root, preset, runs)
    there = set(_artefacts(again, preset, runs))
    leftovers = [name for name in names if name not in there]
    if ended and leftovers:
        raise DataError(
            f"{', '.join(leftovers)}: here, but equal work does not make it",
            fix="left over from other parameters or switched off: delete it",
        )
    if set(names) != there:
        odd = sorted(set(names) ^ there)[0]
        raise DataError(f"{odd} is {'missing there' if odd in names else 'missing here'}", fix="let the run end, then verify")
    changed = tuple(name for name in names if (root / name).read_bytes() != (again / name).read_bytes())
    values = [name for name in names if "values" in Path(name).parts and name.endswith(".json")]
    pairs = [(name, read_json(root / name), read_json(again / name)) for name in values]
    moved = tuple(number for pair in pairs for number in _moved(*pair, tolerance))
    return Verdict(len(names), changed, moved, _differences_of_machines(pairs))


def told(verdict: Verdict) -> str:
    """The verdict in words, a line a fact."""
    lines = [f"{verdict.compared} files compared, {len(verdict.changed)} differ"]
    lines += [f"another kind of machine: {line}" for line in verdict.other_machine]
    shown = [str(number) for number in sorted(verdict.moved, key=lambda number: (number.tolerated, number.file, number.name))]
    lines += shown or (["no number moved"] if verdict.changed else [])
    if verdict.changed and not verdict.other_machine:
        lines += [f"differs: {name}" for name in verdict.changed]
    lines.append("holds: every byte is equal" if not verdict.changed else "holds" if verdict.holds else "does not hold")
    return "\n".join(lines)


def _here(root: Path, preset: str, runs: Sequence[str]) -> list[str]:
    """The names of `_artefacts`, of which there must be values: git has the tables of a preset whose values it has not."""
    names = sorted(_artefacts(root, preset, runs))
    if not any("values" in Path(name).parts for name in names):
        what = f"{', '.join(runs)} in preset '{preset}'" if runs else f"preset '{preset}'"
        raise DataError(f"there are no results of {what} here", fix="run it, or fetch it: `make restore`")
    return names


def _artefacts(root: Path, preset: str, runs: Sequence[str]) -> Iterable[str]:
    """Names, relative to the root, of the files that equal work gives again."""
    results, checkpoints = Path("results") / preset, Path("checkpoints") / preset
    if runs:
        patterns = [f"{results}/{kind}/{run}/*" for run in runs for kind in ("samples", "values")]
        patterns += [f"{checkpoints}/{run}/model.safetensors" for run in runs]
    else:
        patterns = [
            f"{results}/{kind}/**/*" for kind in ("samples", "values", "reference", "tables", "figures", "score/values")
        ]
        patterns += [f"{checkpoints}/**/model.safetensors"]
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_file() and path.name != "run.json" and not path.name.startswith("."):
                yield path.relative_to(root).as_posix()


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


def _checked_runs(runs: Sequence[str]) -> Sequence[str]:
    for run in runs:
        if len(Path(run).parts) != 3 or ".." in Path(run).parts:
            raise DataError(f"--only {run} names no run", fix="--only digits/edm/seed0, for example")
    return runs


def _targets(root: Path, preset: str, run: str) -> list[str]:
    """The values of one run: what Snakemake is to make again."""
    found = sorted((root / "results" / preset / "values" / run).glob("*.json"))
    if not found:
        raise DataError(f"there are no values of {run} in results/{preset}", fix="name a run that there is, or run it first")
    return [path.relative_to(root).as_posix() for path in found]
