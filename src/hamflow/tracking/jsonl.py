"""A log of one JSON object a line, which survives a kill at any instant."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hamflow.files import canonical_json, write_text

Record = dict[str, Any]


class JsonlLog:
    """Appends records to a file, each flushed; a line torn by an earlier kill is cut off first.

    Args:
        path: the file; made, with its folders, if absent.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  open for the life of the log

    def append(self, record: Record) -> None:
        """Write one record. Raises ValueError for values that JSON cannot hold, NaN and infinities included."""
        self._file.write(canonical_json(record) + "\n")
        self._file.flush()

    def restart(self, records: Sequence[Record]) -> None:
        """Replace the file's records by these: the reports of a resumed run so far."""
        self._file.close()
        write_text(self.path, "".join(canonical_json(record) + "\n" for record in records))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def __enter__(self) -> "JsonlLog":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def read_jsonl(path: str | Path) -> list[Record]:
    """The records of a log; a torn last line, which a killed writer leaves, is dropped.

    Raises:
        ValueError: a line before the last that is no JSON object: the file is corrupted, not torn.
    """
    *lines, tail = Path(path).read_bytes().split(b"\n")  # the tail is empty unless torn
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            raise ValueError(f"{path}, line {number} is no JSON object: {line[:80]!r}")
        records.append(record)
    torn = _parse(tail)
    return records if torn is None else [*records, torn]


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:  # of which JSON and UTF-8 errors are kinds
        return None
    return record if isinstance(record, dict) else None


def _cut_torn_line(path: Path) -> None:
    """End the file with its last whole line; a complete record that lacks only its newline is given one."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return
    with open(path, "rb+") as file:
        if _parse(content[end:]) is None:
            file.truncate(end)
        else:
            file.seek(0, 2)
            file.write(b"\n")
