"""The user's own images: a folder, a zip or a tar, with sub-folders or a label file where they have classes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from msgspec import Meta

from hamflow.data import pixels
from hamflow.data.archives import Member, NotAFile, members, shown
from hamflow.data.classes import LABEL_FILE, Arrangement, arrange, read_labels
from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import fingerprint, sha256_of
from hamflow.progress import Progress

Filter = Literal["lanczos", "box", "bicubic", "bilinear"]
FILTERS = get_args(Filter)
LARGEST_RESOLUTION = 1024  # pixels, of the data set
LARGEST_ARRAY = 2**38  # bytes of all images as they are stored, 256 GiB
MOST_NAMED = 20  # of the bad images, and of the endings that are counted one by one
LONGEST_ENDING = 10

WHY = "every image becomes a part of what the model learns and is measured against"


@register("images")
def images(
    path: Annotated[str, Meta(min_length=1)],
    resolution: Annotated[int, Meta(ge=1, le=LARGEST_RESOLUTION)],
    channels: Literal[1, 3] = 3,
    filter: Filter = "lanczos",
    licence: str = "not stated",
) -> Source:
    """Images of any size, made square: turned upright, cropped to the middle, reduced or enlarged to `resolution`.

    Their order is that of their names. If they lie in two folders or more, each folder (below the one that all share) is a
    class; folders train and val or test side by side are the training and the held-out part; a dataset.json of NVlabs'
    dataset_tool says the classes instead. Hidden files and files with other endings are left out, and counted. What a file is
    its content tells, not its ending; of a GIF the first picture is taken, of 16 bits the upper 8.

    Args:
        path: a folder, .zip, .tar, .tar.gz, .tgz, .tar.xz or .txz, from the working directory or from the home directory, ~.
        resolution: height and width, pixels, 1 to 1024.
        channels: 3 (RGB) or 1 (grey, ITU-R 601); what is transparent becomes white.
        filter: by which they are resized: lanczos, box, bicubic or bilinear.
        licence: of the images, for the manifest.
    Raises:
        ConfigurationError: a value that cannot be.
        DataError: an archive that is damaged or does harm (see `hamflow.data.archives`), images that cannot be decoded, are
            truncated, animated or too large; folders or labels that may mean two things (see `hamflow.data.classes`); no image.
    """
    collection = Collection(Path(path).expanduser())
    return Source(
        "image",
        read=lambda: collection.read(resolution, channels, filter),
        shape=(channels, resolution, resolution),
        box=(-1.0, 1.0),
        licence=licence,
        origin=f"images of {path}, cropped to squares and resized to {resolution} x {resolution} ({filter})",
        class_names=lambda: collection.arrangement.classes,
        digest=lambda: collection.digest,
        held_out=lambda: collection.arrangement.held_out,
        contents=lambda: collection.contents,
    )


class Collection:
    """The images of one folder or archive.

    Args:
        path: of it.
        skip: gives why an image of that name is left out; "" if it is not.
    """

    def __init__(self, path: Path, skip: Callable[[str], str] = lambda name: ""):
        self.path, self.skip = path, skip
        self.digest = ""  # sha256 of the archive that was read; for a folder, of the names and sha256 of its images
        self.damaged_blocks = 0
        self.left_out: Counter[str] = Counter()  # how many files, by the reason
        self.label_digests: dict[str, str] = {}  # of each label file
        self.image_digests: dict[str, str] = {}  # sha256 of each image that was read

    @cached_property
    def arrangement(self) -> Arrangement:
        """Classes and parts of the images, in the order of `names`."""
        return arrange(str(self.path), self.names, self._listing[1])

    @property
    def names(self) -> list[str]:
        """Of the images, sorted."""
        return self._listing[0]

    @property
    def contents(self) -> dict[str, Any]:
        """For the manifest: what was read and what was not."""
        return {
            "endings": _largest(Counter(_ending(name) or "none" for name in self.names)),
            "left_out": _largest(self.left_out),
            "damaged_blocks": self.damaged_blocks,
        }

    @cached_property
    def _listing(self) -> tuple[list[str], dict[str, dict[str, int]]]:
        """Names of the images, sorted; labels, by the folder of each label file."""
        names, labels = [], {}
        for member in members(self.path):
            reason = self._left_out(member)
            folder, _, base = member.name.rpartition("/")
            if base == LABEL_FILE and not _is_hidden(member.name):
                content = member.read()
                found = read_labels(f"{self.path}: {shown(member.name)}", content)
                if found is not None:
                    labels[folder] = found
                    self.label_digests[member.name] = hashlib.sha256(content).hexdigest()
                    continue
            if reason:
                self.left_out[reason] += 1
            else:
                names.append(member.name)
        if not names:
            raise DataError(
                f"there is no image in {self.path}", why=WHY, fix=f"images are files named {', '.join(pixels.SUFFIXES)}"
            )
        return sorted(names), labels

    def read(self, resolution: int, channels: int, filter: str) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 [N, resolution, resolution, channels], and int64 [N] or None; sets `digest`."""
        labels = self.arrangement.labels
        array = _empty(len(self.names), resolution, channels)
        archive = None if self.path.is_dir() else sha256_of(self.path)
        self.image_digests = {}
        bad: list[str] = []
        self.damaged_blocks = 0
        progress = Progress(f"read {self.path}", len(self.names), "img")
        for row, member in self._members():
            try:
                content = member.read()
                array[row], damaged = pixels.decode(content, resolution, channels, filter)
            except (ValueError, NotAFile) as error:
                bad.append(f"{self.path}: {shown(member.name)} cannot be used: {getattr(error, 'what', error)}")
                if len(bad) == MOST_NAMED:
                    break
                continue
            self.damaged_blocks += damaged
            self.image_digests[member.name] = hashlib.sha256(content).hexdigest()
            progress.advance(1)
        progress.close()
        if bad:
            more = "\n  and perhaps others: no more was read" if len(bad) == MOST_NAMED else ""
            raise DataError("\n  ".join(bad) + more, why=WHY, fix="mend them, or take them out, and prepare again")
        if archive and sha256_of(self.path) != archive:
            raise self._changed("it has other bytes")
        read = {**self.label_digests, **self.image_digests}
        self.digest = archive or fingerprint(sorted([name, digest] for name, digest in read.items()))
        return array, labels

    def _members(self) -> Iterator[tuple[int, Member]]:
        """(row, file) of every image in the order of storage: a tar is read once, from its beginning to its end."""
        row_of = {name: row for row, name in enumerate(self.names)}
        for member in members(self.path):
            if member.name in self.label_digests:
                if hashlib.sha256(member.read()).hexdigest() != self.label_digests[member.name]:
                    raise self._changed(f"{shown(member.name)} has other labels")
            elif member.name in row_of:
                yield row_of.pop(member.name), member
            elif _ending(member.name) in pixels.SUFFIXES and not self._left_out(member):
                raise self._changed(f"{shown(member.name)} came")
        if row_of:
            raise self._changed(f"{shown(min(row_of))} went")

    def _left_out(self, member: Member) -> str:
        return _left_out(member) or self.skip(member.name)

    def _changed(self, how: str) -> DataError:
        return DataError(f"{self.path} changed while it was read: {how}", why=WHY, fix="prepare it again")


def _empty(count: int, resolution: int, channels: int) -> np.ndarray:
    """uint8 [count, resolution, resolution, channels], not yet written. Raises DataError for more than there is memory."""
    size = count * resolution**2 * channels
    try:
        if size > LARGEST_ARRAY:
            raise MemoryError(f"the most is {LARGEST_ARRAY / 2**30:.0f} GiB")
        return np.empty((count, resolution, resolution, channels), np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{count} images of {resolution} x {resolution} take {size / 2**30:.0f} GiB of memory ({error})",
            fix="a smaller resolution, or fewer images",
        ) from error


def _left_out(member: Member) -> str:
    """Why a file is no image of the collection; empty if it is one."""
    if member.left_out or _is_hidden(member.name):
        return member.left_out or "hidden"
    ending = _ending(member.name)
    if ending in pixels.SUFFIXES:
        return ""
    if not ending:
        try:
            return "" if pixels.MAGIC.match(member.read()) else "no image, without an ending"
        except NotAFile:
            return "no file"
    return f"no image ({ending if len(ending) <= LONGEST_ENDING and ending.isprintable() else 'of another ending'})"


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _ending(name: str) -> str:
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    return dot and dot + ending.lower()


def _largest(counts: Counter[str]) -> dict[str, int]:
    """The largest counts by name, and the sum of all others: a manifest has bounds."""
    kept = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_NAMED])
    others = sum(counts.values()) - sum(kept.values())
    return dict(sorted(kept.items())) | ({"others": others} if others else {})
