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

from hamflow.errors import DataError
from hamflow.files import fingerprint, write_json
from hamflow.files.memo import Memo
from hamflow.pipeline.jobs import Job

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
            DataError: it is to be done, and the user's own files that it reads are gone.
        """
        if job.stamp not in self.verdicts:
            self.verdicts[job.stamp] = self._judge(job)
        return self.verdicts[job.stamp]

    def _judge(self, job: Job) -> Verdict:
        before = [self.verdict(parent).due for parent in job.parents]
        written = job.written or {"outputs": {}}
        there = [path.exists() for path in {*job.outputs, *map(Path, written["outputs"])}]
        differs = self.difference(job) if any(there) else ""
        if differs and not any(before):
            self._tell(job, differs)
        if job.gone and (differs or not all(there)):
            raise DataError(
                f"{job.originals} is gone, of which {job.outputs[0].parent} is to be prepared",
                why=f"what lies there was {differs}" if differs else "",
                fix="put it back, or give another path; nothing was deleted",
            )
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
        if written["spec"] != job.spec:
            return f"made with other parameters: {_named(_changes(written['spec'], job.spec))}"
        if not job.gone and (modules := _changed(written["code"], job.code)):
            return f"made by other code: {_named(modules)}"
        parents = {str(parent): parent.recipe for parent in job.parents}
        if others := _changed(written["parents"], parents):
            return f"made of others: {_named(others)}"
        if job.originals is not None and not job.gone and written.get("originals") != users_files(str(job.originals)):
            return f"made of other files than those in {job.originals} now"
        inputs = set(map(str, job.input_files))
        if inputs != written["inputs"].keys():
            return f"made of others: {_named(sorted(inputs ^ written['inputs'].keys()))}"
        return self._other_bytes(written["outputs"], "were written") or self._other_bytes(written["inputs"], "it was made of")

    def _other_bytes(self, digests: Mapping[str, str], when: str) -> str:
        files = [name for name, digest in digests.items() if Path(name).is_file() and self.memo.sha256_of(Path(name)) != digest]
        return f"{_named(files)} has other bytes than {when}" if files else ""

    def refuse(self, job: Job) -> None:
        """Raise DataError if anything that a job reads, or that this was made of, is not what is asked for."""
        for parent in job.parents:
            self.refuse_before(parent)

    def refuse_before(self, job: Job, seen: set[Path] | None = None) -> None:
        """Raise DataError if a job's files, or any from which they follow, are not what is asked for."""
        seen = set() if seen is None else seen
        for parent in job.parents:
            if parent.stamp not in seen:
                seen.add(parent.stamp)
                self.refuse_before(parent, seen)
        there = [path for path in job.outputs if path.exists()]
        if there and (differs := self.difference(job)):
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
    known: dict[str, Any] = {"spec": job.spec, "code": job.code, "recipe": job.recipe}
    known["parents"] = {str(parent): parent.recipe for parent in job.parents}
    known["inputs"] = {str(path): memo.sha256_of(path) for path in job.input_files if path.exists()}
    if job.originals is not None:
        known["originals"] = users_files(str(job.originals))
    yield
    write(job, known, memo)


def write(job: Job, known: Mapping[str, Any], memo: Memo) -> None:
    """Write the stamp of a job whose files are complete."""
    outputs = [*job.outputs, *(job.stamp.parent.glob("*.npy") if job.rule == "prepare" else [])]
    written = {str(path): memo.sha256_of(path) for path in sorted(set(outputs))}
    write_json(job.stamp, {**known, "outputs": written})
    memo.save()


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
