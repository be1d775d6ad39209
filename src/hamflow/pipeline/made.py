"""What every artefact was made of, and whether that is what is asked for now. Bytes may come by any way; this decides.

Beside the files of each job lies its stamp: its parameters, a digest of the code behind it, the digests of what it read and
of what it wrote, and its recipe, which is a digest of all of this back to the sources of the data. A job whose stamp says
something else than what is asked for is done again, and nothing that follows from it is taken.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hamflow.errors import DataError
from hamflow.files import fingerprint, write_json
from hamflow.files.memo import Memo
from hamflow.pipeline.jobs import Job, Stamp

MOST_TOLD = 20
MOST_NAMED = 3  # differences in a sentence
NO_STAMP = "nothing says what it was made of"


@dataclass(frozen=True)
class Verdict:
    """Whether a job is to be done; and, where its files lie there but are not what is asked for, how they differ."""

    due: bool
    differs: str = ""


class Checks:
    """Verdicts on jobs, each made once.

    Args:
        memo: of digests of files.
        forced: whether a job is to be done in any case.
    """

    def __init__(self, memo: Memo, forced: Callable[[Job], bool] = lambda job: False):
        self.memo, self.forced = memo, forced
        self.verdicts: dict[Path, Verdict] = {}
        self.told = 0

    def verdict(self, job: Job) -> Verdict:
        """Whether a job is to be done: what it left differs or is incomplete, or a job before it is to be done.

        One of which nothing is there is done if somebody needs its files, as Snakemake knows.

        Raises:
            DataError: what it left is not what is asked for, and the user's own files, to make it again of, are not there.
        """
        if job.stamp not in self.verdicts:
            self.verdicts[job.stamp] = self._judge(job)
        return self.verdicts[job.stamp]

    def _judge(self, job: Job) -> Verdict:
        before = [self.verdict(parent).due for parent in job.parents]
        written = job.written
        there = [path.exists() for path in {*job.outputs, *map(Path, written.outputs if written else ())}]
        differs = self.difference(job) if any(there) else ""
        if differs and job.gone:
            raise DataError(
                f"{job.originals} is not there, of which {job.outputs[0].parent} is to be prepared again",
                why=f"what lies there: {differs}",
                fix="put it back, or give another path; nothing was deleted",
            )
        if differs and not any(before):
            self._tell(job, differs)
        return Verdict(any(before) or bool(differs) or (any(there) and not all(there)) or self.forced(job), differs)

    def _tell(self, job: Job, differs: str) -> None:
        """Say on the terminal why a job is done again, of the first few."""
        self.told += 1
        if self.told <= MOST_TOLD:
            print(f"To be made again: {job}, {differs}", file=sys.stderr)
        elif self.told == MOST_TOLD + 1:
            print("To be made again: others, too", file=sys.stderr)

    def difference(self, job: Job) -> str:
        """How the files of a job differ from what is asked for, "" if they do not; files that are not there are passed over."""
        written = job.written
        if written is None:
            return NO_STAMP
        if written.spec != job.spec:
            return f"made with other parameters: {_named(_changes(written.spec, job.spec))}"
        if not job.gone and (modules := _changed(written.code, job.code)):
            return f"made by other code: {_named(modules)}"
        if others := _changed(written.parents, {str(parent): parent.recipe for parent in job.parents}):
            return f"made of others: {_named(others)}"
        if job.originals is not None and not job.gone and written.originals != users_files(str(job.originals)):
            return f"made of other files than those in {job.originals} now"
        if inputs := set(map(str, job.input_files)) ^ written.inputs.keys():
            return f"made of others: {_named(sorted(inputs))}"
        return self._other_bytes(written.outputs, "were written") or self._other_bytes(written.inputs, "it was made of")

    def _other_bytes(self, digests: Mapping[str, str], when: str) -> str:
        files = [name for name, digest in digests.items() if Path(name).is_file() and self.memo.sha256_of(Path(name)) != digest]
        return f"{_named(files)} has other bytes than {when}" if files else ""

    def refuse(self, job: Job) -> None:
        """Raise DataError if anything that a job reads, or that this was made of, is not what is asked for."""
        for before in _ancestors(job, set()):
            there = [path for path in before.outputs if path.exists()]
            if there and (differs := self.difference(before)):
                raise DataError(
                    f"{there[0]} is not what is asked for now: {differs}",
                    why="a number would stand under parameters, code or data that did not make it",
                    fix="start the workflow, which makes it again (`snakemake -n` shows what), or ask for what made it",
                )


@contextmanager
def making(job: Job, memo: Memo) -> Iterator[None]:
    """Do a job within this block: what it reads is checked before, and its stamp is written after.

    Raises:
        DataError: something that it reads is not what is asked for.
    """
    checks = Checks(memo)
    checks.refuse(job)
    stamp = Stamp(
        spec=job.spec,
        code=job.code,
        parents={str(parent): parent.recipe for parent in job.parents},
        inputs={str(path): memo.sha256_of(path) for path in job.input_files if path.exists()},
        outputs={},
        recipe=job.recipe,
        originals=None if job.originals is None else users_files(str(job.originals)),
    )
    yield
    write(job, stamp, memo)


def write(job: Job, stamp: Stamp, memo: Memo) -> None:
    """Write the stamp of a job whose files are complete, with their digests."""
    outputs = [*job.outputs, *(job.stamp.parent.glob("*.npy") if job.rule == "prepare" else [])]
    digests = {str(path): memo.sha256_of(path) for path in sorted(set(outputs))}
    write_json(job.stamp, msgspec.to_builtins(msgspec.structs.replace(stamp, outputs=digests)))
    memo.save()


def _ancestors(job: Job, seen: set[Path]) -> Iterator[Job]:
    """The jobs before one, each once and after those before itself."""
    for parent in job.parents:
        if parent.stamp not in seen:
            seen.add(parent.stamp)
            yield from _ancestors(parent, seen)
            yield parent


def users_files(path: str | None) -> str:
    """The fingerprint of the user's own images, by name, size and time of change."""
    place = Path(path or os.devnull).expanduser()
    files, seen = [place], set()
    for folder, folders, names in os.walk(place, followlinks=True):  # each folder once, as its preparation does
        identity = os.stat(folder).st_dev, os.stat(folder).st_ino
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders.sort()
        files += [Path(folder, name) for name in sorted(names)]
    found = [(os.path.relpath(file, place), file.stat()) for file in files if file.is_file()]
    return fingerprint([[name, about.st_size, about.st_mtime_ns] for name, about in found])


def _changes(before: Any, now: Any, where: str = "") -> list[str]:
    """Where two plain values differ: `training.batch` (64 then, 128 now)."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted(before.keys() | now.keys())
        return [one for key in keys for one in _changes(before.get(key), now.get(key), f"{where}.{key}" if where else key)]
    return [f"`{where}` ({before} then, {now} now)"] if before != now else []


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
