"""Finding the files of a published data set: where the user says, where a package has put them, or downloaded once."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hamflow.data.archives import LARGEST_MEMBER, members
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import exclusive, sha256_of
from hamflow.progress import Progress

VARIABLE = "HAMFLOW_DATA"  # of the environment: a folder with the files of data sets
BLOCK = 2**20  # bytes read at a time
PATIENCE = 60  # seconds without a byte
ALGORITHMS = {32: "md5", 64: "sha256"}  # by the length of a digest in hex

WHY = "results under the name of a published data set are compared with everybody's"


@dataclass(frozen=True)
class Download:
    """One file of a data set in the network: its address, and the sha256 of its bytes."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Published:
    """A data set whose files anybody can get, and the three ways to them.

    Args:
        source: its name in `datasets.<name>.source`, and of its folder in HAMFLOW_DATA.
        names: of the file or folder that it usually is; looked for in HAMFLOW_DATA and in that folder.
        packages: where a package puts it; "" if none has it. install: the command that does.
        downloads: its files in the network, all of which it consists of; none where no address with a known sha256 is.
        page: where people get it.
    """

    source: str
    names: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    install: str = ""
    downloads: tuple[Download, ...] = ()
    page: str = ""

    def find(self, path: str) -> Path:
        """The folder or archive: `path` if it says one, else in HAMFLOW_DATA, of a package, or downloaded now.

        Raises:
            ConfigurationError: `path` is not there, or there is no way to the files; names all ways, and what to type.
            DataError: the network gave other bytes.
        """
        if path:
            if (place := Path(path).expanduser()).exists():
                return place
            raise self.absent(f"there is no {place}, the `path` of data source '{self.source}'")
        places = [self._in_folder(folder) for folder in self._folders]
        places += [Path(place).expanduser() for place in self.packages]
        if found := next((place for place in places if place and place.exists()), None):
            return found
        if not self.downloads:
            raise self.absent(f"the files of data source '{self.source}' are not on this machine")
        return self._downloaded()

    def absent(self, what: str) -> ConfigurationError:
        """The error that names every way to the files."""
        told = os.environ.get(VARIABLE)
        names = "".join(f"{name}, " for name in self.names)
        ways = [
            "a copy: `options: {path: PATH}` in its entry of `datasets`, "
            f"or `export {VARIABLE}=FOLDER`, where FOLDER has {names}or them in a folder {self.source}"
            + (f" (it is {told} now)" if told else ""),
            f"a package: `{self.install}`" if self.install else "a package: none has them",
        ]
        if self.downloads:
            addresses = " ".join(one.url for one in self.downloads)
            ways.append(
                f"a download, made by itself where the network is reached; elsewhere: `curl -L --remote-name-all {addresses}`"
            )
        else:
            ways.append(f"a download: by hand, from {self.page}; then the first way, for no file there has a known sha256")
        return ConfigurationError(what, why=WHY, fix="one of" + "".join(f"\n    {i}. {way}" for i, way in enumerate(ways, 1)))

    @property
    def _folders(self) -> list[Path]:
        """Where files of data sets are kept: HAMFLOW_DATA, and where downloads go without it."""
        given = os.environ.get(VARIABLE)
        kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "hamflow").expanduser()
        return ([Path(given).expanduser()] if given else []) + [kept]

    def _in_folder(self, folder: Path) -> Path | None:
        """The file or folder of this data set in such a folder; None: not there, or not all of a download."""
        own, alone = folder / self.source, [one.name for one in self.downloads if len(self.downloads) == 1]
        for place in [*(own / name for name in (*self.names, *alone)), *(folder / name for name in self.names)]:
            if place.exists():
                return place
        try:
            there = {name for name in os.listdir(own) if not name.startswith(".")}
        except OSError:
            return None
        wanted = {one.name for one in self.downloads}
        return own if there and (wanted <= there or not wanted & there) else None

    def _downloaded(self) -> Path:
        folder = self._folders[0] / self.source
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for one in self.downloads:
                download(one, folder / one.name)
        except (OSError, http.client.HTTPException) as error:
            raise self.absent(
                f"the files of data source '{self.source}' are not on this machine, and cannot be downloaded ({error})"
            ) from error
        return folder / self.downloads[0].name if len(self.downloads) == 1 else folder


def download(one: Download, path: Path) -> None:
    """Fetch a file once: it appears under its name when it is whole; what an interruption left is gone on with.

    Raises:
        OSError, http.client.HTTPException: the network's.
        DataError: other bytes came than the sha256 says.
    """
    part = path.with_name(f".{path.name}.part")
    with exclusive(path.with_name(f".{path.name}.lock")):
        if path.exists():
            return
        print(f"downloading {one.url} to {path}", flush=True)
        if not (part.exists() and sha256_of(part) == one.sha256):
            _fetch(one.url, part)
        found = sha256_of(part)
        if found != one.sha256:
            part.unlink()
            raise DataError(
                f"{one.url} has sha256 {found}, not {one.sha256}", why=WHY, fix="try again; else get the file elsewhere"
            )
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def _fetch(url: str, part: Path) -> None:
    """The bytes of an address behind those that are there. Raises OSError if fewer came than were promised: they are kept."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is behind what is there: other bytes, or too many
            part.unlink()
            return _fetch(url, part)
        raise
    with response:
        goes_on = response.status == 206
        have = have if goes_on else 0
        size = int(response.headers.get("Content-Length") or 0)
        progress = Progress(f"download {part.name}", have + size, "B", have)
        with open(part, "ab" if goes_on else "wb") as file:
            while block := response.read(BLOCK):
                file.write(block)
                progress.advance(len(block))
            there = file.tell()
        progress.close()
    if size and there < have + size:
        raise OSError(f"the connection broke after {there} of {have + size} bytes; start again to go on")


def read_known(path: Path, digests: Mapping[str, str], what: str) -> dict[str, bytes]:
    """The files of some names, wherever they lie in a folder or an archive, each with its known bytes.

    Args:
        digests: {name: md5 or sha256}; a file NAME.gz counts by what is packed in it.
        what: they are, "CIFAR-10".
    Raises:
        DataError: one is absent, or has other bytes.
    """
    found: dict[str, bytes] = {}
    for member in members(path):
        base = member.name.rpartition("/")[2]
        name = base.removesuffix(".gz")
        if name in digests and name not in found:
            content = member.read()
            found[name] = content if name == base else _unpacked(content, f"{path}: {member.name}")
            check_digest(found[name], digests[name], f"{path}: {member.name}", what)
    if missing := sorted(digests.keys() - found.keys()):
        raise DataError(
            f"{path} is not {what}: it has no {', '.join(missing)}", why=WHY, fix=f"a folder or archive with all of {what}"
        )
    return found


def check_digest(content: bytes, expected: str, where: str, what: str) -> None:
    """Raise DataError for bytes that have another md5 or sha256 than expected."""
    algorithm = ALGORITHMS[len(expected)]
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise other_bytes(where, what, algorithm, found, expected)


def other_bytes(where: object, what: str, algorithm: str, found: str, expected: str) -> DataError:
    """The error about a file that is not the published one."""
    return DataError(
        f"{where} is not {what}: it has {algorithm} {found}, not {expected}",
        why=WHY,
        fix=f"get {what} again; images of your own are data of source `images`",
    )


def _unpacked(content: bytes, where: str) -> bytes:
    try:
        unpack = zlib.decompressobj(wbits=31)
        return unpack.decompress(content, LARGEST_MEMBER)
    except zlib.error as error:
        raise DataError(f"{where} is damaged ({error})", why=WHY, fix="get it again") from error
