"""Reading the files of a folder, a zip or a tar that anyone may have made. Nothing is ever extracted: a member's bytes go to
memory, within bounds, and no name in an archive becomes a path.
"""

import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from hamflow.errors import ConfigurationError, DataError

MOST_MEMBERS = 4_000_000
LARGEST_MEMBER = 2**26  # bytes, 64 MiB
LARGEST_TOTAL = 2**40  # bytes that all members may have together, 1 TiB
LARGEST_RATIO = 100  # of bytes unpacked to bytes packed; images are compressed already, so that packing them gains little
ALWAYS_ALLOWED = 2**24  # bytes unpacked that no ratio forbids
LARGEST_TAR_HEADER = 2**12  # bytes of a long name or of extended attributes: tarfile's time grows with their square
LONGEST_NAME = 1024

WHY = "an archive that is damaged, or made to do harm, would give other images, fill the memory or reach other files"
FIX = "unpack it elsewhere, look at what it holds, and give the folder of the images"
UNREADABLE = (  # exceptions of zipfile and tarfile for bytes that are no archive
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, ValueError, LookupError, TypeError, RuntimeError, OverflowError, MemoryError),
)


class NotAFile(DataError):
    """A member is a link, a device, or is packed in a way that is not read."""


@dataclass(frozen=True)
class Member:
    """A file in a folder or an archive.

    Args:
        name: its parts below the root, "/" between them; of no use as a path, and `shown` before it is printed.
        read: gives its bytes; to be called before the next member is asked for. Raises NotAFile.
        left_out: why there is nothing to be read, if so.
    """

    name: str
    read: Callable[[], bytes]
    left_out: str = ""


def members(path: str | Path) -> Iterator[Member]:
    """The files below a folder, or in a .zip, .tar, .tar.gz, .tgz, .tar.xz or .txz, in the order of their storage.

    Archives in archives are not opened. Each folder is read once, by its own name where it has one below the root, else through
    the first link to it.

    Raises:
        ConfigurationError: there is no such path, or it is of another kind.
        DataError: it is damaged, or holds what no collection of files needs: a name that leaves its root, a name twice, more
            members or bytes than the bounds of this module, or more bytes than its size explains.
    """
    path = Path(path)
    kind = next((kind for kind in _READERS if path.name.lower().endswith(kind)), "")
    if not path.exists():
        raise ConfigurationError(f"there is no folder or archive {path}", fix="paths are relative to the working directory")
    if path.is_dir():
        reader: Callable[[Path], Iterator[Member]] = _read_folder
    elif kind and path.is_file():
        reader = _READERS[kind]
    else:
        raise ConfigurationError(f"{path} is neither a folder nor one of {', '.join(sorted(_READERS))}")
    seen: set[str] = set()
    with _explained(path):
        for member in reader(path):
            if not member.name or member.name in seen:
                raise _refusal(path, member.name, "occurs twice, or has no name")
            seen.add(member.name)
            if len(seen) > MOST_MEMBERS:
                raise DataError(f"{path} holds more than {MOST_MEMBERS} files", why=WHY, fix=FIX)
            yield replace(member, read=_bounded_read(path, member))


def shown(name: str) -> str:
    """A name with spaces for every kind of space, and escapes for what cannot be printed."""
    spaced = (" " if character.isspace() or unicodedata.category(character) == "Zs" else character for character in name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in spaced)


def _read_folder(root: Path) -> Iterator[Member]:
    def fail(error: OSError) -> None:
        raise error

    own = {_identity(folder) for folder, _, _ in os.walk(root, onerror=fail)}
    linked: set[str] = set()  # paths that lead through a link
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=fail, followlinks=True):
        below = Path(folder).relative_to(root)
        for name in sorted(folders):
            path = os.path.join(folder, name)
            if folder in linked or os.path.islink(path):
                linked.add(path)
                if _identity(path) in own or _identity(path) in seen or name.startswith("."):
                    folders.remove(name)
                    yield Member((below / name).as_posix(), bytes, "links to folders that are read elsewhere")
                seen.add(_identity(path))
        folders.sort()
        for name in sorted(files):
            inside = (below / name).as_posix()
            yield Member(inside, partial(_read_file, root, inside))


def _identity(folder: str) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _read_file(root: Path, name: str) -> bytes:
    path = root / name
    if not path.exists() or not stat.S_ISREG(path.stat().st_mode):  # a link counts as the file that it points to
        raise _refusal(root, name, "is no file", NotAFile)
    with open(path, "rb") as file:
        return file.read(LARGEST_MEMBER + 1)


def _read_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        budget = _Budget(path)
        for info in archive.infolist():
            name = _safe_name(path, info.orig_filename)
            if info.is_dir():
                continue
            budget.spend(info.file_size)
            yield Member(name, partial(_read_zip_member, path, archive, info))


def _read_zip_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
    if kind not in (0, stat.S_IFREG):
        raise _refusal(path, info.filename, "is a link or a device", NotAFile)
    if info.flag_bits & 0x1:
        raise _refusal(path, info.filename, "is encrypted", NotAFile)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without bounds
        raise _refusal(path, info.filename, "is packed by another method than deflate", NotAFile)
    with archive.open(info) as file:
        return _complete(file.read(LARGEST_MEMBER + 1), info.file_size)


def _tar_reader(unpack: Callable[..., Any]) -> Callable[[Path], Iterator[Member]]:
    def read(path: Path) -> Iterator[Member]:
        with unpack(path, "rb") as content:
            budget = _Budget(path)
            counted = _Counted(content, budget)
            with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Header) as archive:  # type: ignore[call-overload]  # reads alone
                while (info := archive.next()) is not None:
                    archive.members.clear()  # it would keep one for each header
                    name = _safe_name(path, info.name)
                    if not 0 <= info.size <= budget.left + tarfile.RECORDSIZE:
                        raise budget.exceeded()  # before tarfile skips so many bytes, which may not even be there
                    if info.isdir():
                        continue
                    yield Member(name, partial(_read_tar_member, path, archive, info))
            while counted.read(2**16):
                pass  # to the end, where the checksum of the compressed stream stands

    return read


def _read_tar_member(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if not info.isfile() or info.sparse is not None:
        raise _refusal(path, info.name, "is a link, a device or a sparse file", NotAFile)
    file = archive.extractfile(info)
    assert file is not None  # a regular file has content
    return _complete(file.read(LARGEST_MEMBER + 1), info.size)


def _complete(content: bytes, size: int) -> bytes:
    if len(content) < min(size, LARGEST_MEMBER + 1):
        raise EOFError("a member has fewer bytes than it claims")
    return content


class _Header(tarfile.TarInfo):
    """A header of a tar. Of itself, tarfile takes a damaged one for the archive's end, and reads a long name of any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the archive's end
            raise
        except tarfile.HeaderError as error:
            raise ValueError(str(error)) from error
        described = header.type in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)
        if header.size < 0 or (header.size > LARGEST_TAR_HEADER and not described):
            raise ValueError(f"a header claims {header.size} bytes")
        return header


class _Budget:
    """Bytes that may still come out of an archive, by its own size."""

    def __init__(self, path: Path):
        self.path = path
        self.left = min(LARGEST_TOTAL, max(ALWAYS_ALLOWED, LARGEST_RATIO * path.stat().st_size))

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise self.exceeded()

    def exceeded(self) -> DataError:
        reason = f"unpacks to more than {LARGEST_RATIO} times its size, or to more than {LARGEST_TOTAL} bytes"
        return DataError(f"{self.path} {reason}", why=WHY, fix=FIX)


class _Counted:
    """A stream that charges every byte read from it to an allowance."""

    def __init__(self, stream: IO[bytes], budget: _Budget):
        self.stream, self.budget = stream, budget

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.budget.spend(len(content))
        return content


def _safe_name(path: Path, name: str) -> str:
    """A member's name without "./". Raises DataError for one that could be taken for a path outside."""
    if name.startswith("/") or "\\" in name or re.match("[A-Za-z]:", name):
        raise _refusal(path, name, "is an absolute path, or a path of Windows")
    if len(name) > LONGEST_NAME or "\0" in name:
        raise _refusal(path, name, "has a NUL, or is too long")
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if "" in parts or ".." in parts:
        raise _refusal(path, name, "leaves the folder that it stands in")
    return "/".join(parts)


def _refusal(path: Path, name: str, reason: str, kind: type[DataError] = DataError) -> DataError:
    return kind(f"{path}: the member {name[:LONGEST_NAME]!r} {reason}", why=WHY, fix=FIX)


def _bounded_read(path: Path, member: Member) -> Callable[[], bytes]:
    def read() -> bytes:
        with _explained(path):
            content = member.read()
        if len(content) > LARGEST_MEMBER:
            raise _refusal(path, member.name, f"has more than {LARGEST_MEMBER} bytes")
        return content

    return read


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise DataError(f"{path} is damaged, or not what its name says ({error})", why=WHY, fix=FIX) from error


_READERS: dict[str, Callable[[Path], Iterator[Member]]] = {
    ".zip": _read_zip,
    ".tar": _tar_reader(open),
    **dict.fromkeys((".tar.gz", ".tgz"), _tar_reader(gzip.open)),
    **dict.fromkeys((".tar.xz", ".txz"), _tar_reader(lzma.open)),
}
