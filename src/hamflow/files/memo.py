"""What was computed from bytes, kept from one process to the next."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hamflow.files.atomic import sha256_of, write_text

MEMO = Path(".snakemake", "hamflow-memo.json")  # of a working directory
MOST_ENTRIES = 100_000


class Memo:
    """Texts by their keys, in a JSON file. Losing it costs time alone: a file that is absent, damaged or read-only is as empty.

    Args:
        path: of the file; None: nothing is kept.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.known = self._read()
        self.new: dict[str, str] = {}

    def get(self, key: str, make: Callable[[], str]) -> str:
        """The text of a key, made if it is not known."""
        if key not in self.known:
            self.known[key] = self.new[key] = make()
        return self.known[key]

    def sha256_of(self, path: Path) -> str:
        """sha256 of a file, in hex; one of the same inode, size and times of change is not read again."""
        about = os.stat(path)
        key = [os.path.abspath(path), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
        return self.get(json.dumps(key), lambda: sha256_of(path))

    def save(self) -> None:
        """Write what is new beside what others have written meanwhile."""
        if self.path is None or not self.new:
            return
        known = {**self._read(), **self.new}
        with suppress(OSError):
            write_text(self.path, json.dumps(dict(list(known.items())[-MOST_ENTRIES:])))
            self.new.clear()

    def _read(self) -> dict[str, str]:
        with suppress(OSError, ValueError):
            if self.path is not None and isinstance(found := json.loads(self.path.read_text(encoding="utf-8")), dict):
                return found
        return {}
