"""The user's own images: a folder, a zip or a tar of PNG, JPEG or WebP files, in sub-folders where they have classes."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from msgspec import Meta

from hamflow.data.archives import members
from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import fingerprint, sha256_of
from hamflow.progress import Progress

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PNG = b"\x89PNG"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel: others have no agreed grey levels
Filter = Literal["lanczos", "box", "bicubic", "bilinear"]
FILTERS = get_args(Filter)
LARGEST_RESOLUTION = 1024  # pixels, of the data set
MOST_PIXELS = 2**26  # of an image before it is reduced: 8192 x 8192
LARGEST_ARRAY = 2**38  # bytes of all images as they are stored, 256 GiB

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
    class; hidden files and files of other kinds are left out, and counted.

    Args:
        path: a folder, .zip, .tar, .tar.gz, .tgz, .tar.xz or .txz, from the working directory.
        resolution: height and width, pixels, 1 to 1024.
        channels: 3 (RGB) or 1 (grey, ITU-R 601); what is transparent becomes white.
        filter: by which they are resized: lanczos, box, bicubic or bilinear.
        licence: of the images, for the manifest.
    Raises:
        ConfigurationError: a value that cannot be.
        DataError: an archive that is damaged or does harm (see `hamflow.data.archives`), an image that cannot be decoded, is
            truncated, animated or too large; images that lie partly in folders and partly not; none at all.
    """
    collection = _Collection(Path(path))
    return Source(
        "image",
        read=lambda: collection.read(resolution, channels, filter),
        shape=(channels, resolution, resolution),
        box=(-1.0, 1.0),
        licence=licence,
        origin=f"images of {path}, cropped to squares and resized to {resolution} x {resolution} ({filter})",
        class_names=lambda: collection.class_names,
        digest=lambda: collection.digest,
    )


class _Collection:
    """The images of one folder or archive."""

    def __init__(self, path: Path):
        self.path = path
        self.digest = ""  # sha256 of the archive that was read; for a folder, of the names and sha256 of its images

    @cached_property
    def names(self) -> list[str]:
        """Of the images, sorted."""
        every = [member.name for member in members(self.path)]
        names = sorted(filter(_is_image, every))
        if not names:
            raise DataError(f"there is no image in {self.path}", why=WHY, fix=f"images are files named {', '.join(SUFFIXES)}")
        if others := len(every) - len(names):
            print(f"{self.path}: {len(names)} images; {others} files that are hidden or no images are left out", flush=True)
        return names

    @cached_property
    def class_of(self) -> list[str]:
        """The class of each image, in the order of `names`; empty texts where there are none."""
        folders = [name.rpartition("/")[0] for name in self.names]
        shared = os.path.commonpath(folders)
        classes = [folder.removeprefix(shared).lstrip("/").partition("/")[0] for folder in folders]
        if "" in classes and any(classes):
            alone, other = self.names[classes.index("")], next(name for name, c in zip(self.names, classes, strict=True) if c)
            raise DataError(
                f"{self.path} has images in folders, such as {other}, and beside them, such as {alone}",
                why="it cannot be told whether the folders are classes",
                fix="move every image into the folder of its class, or all of them into one",
            )
        return classes

    @cached_property
    def classes(self) -> list[str]:
        """Sorted; empty where there are none."""
        return sorted(set(self.class_of) - {""})

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of `classes`, for the manifest, which knows one kind of space only."""
        return tuple(re.sub(r"\s", " ", name) for name in self.classes)

    def read(self, resolution: int, channels: int, filter: str) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 [N, resolution, resolution, channels], and int64 [N] or None; sets `digest`."""
        array = _empty(len(self.names), resolution, channels)
        archive = None if self.path.is_dir() else sha256_of(self.path)
        digests = []
        progress = Progress(f"read {self.path}", len(self.names), "img")
        for row, name, content in self._contents():
            array[row] = _decode(f"{self.path}: {name}", content, resolution, channels, filter)
            if not archive:
                digests.append([name, hashlib.sha256(content).hexdigest()])
            progress.advance(1)
        progress.close()
        if archive and sha256_of(self.path) != archive:
            raise self._changed("it has other bytes")
        self.digest = archive or fingerprint(sorted(digests))
        if not self.classes:
            return array, None
        number = {name: label for label, name in enumerate(self.classes)}
        return array, np.array([number[name] for name in self.class_of], dtype=np.int64)

    def _contents(self) -> Iterator[tuple[int, str, bytes]]:
        """(row, name, bytes) of every image in the order of storage: a tar is read once, from its beginning to its end."""
        row_of = {name: row for row, name in enumerate(self.names)}
        for member in members(self.path):
            if _is_image(member.name):
                row = row_of.pop(member.name, None)
                if row is None:
                    raise self._changed(f"{member.name} came")
                yield row, member.name, member.read()
        if row_of:
            raise self._changed(f"{min(row_of)} went")

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


def _is_image(name: str) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not hidden


def _decode(where: str, content: bytes, resolution: int, channels: int, filter: str) -> np.ndarray:
    """uint8 [resolution, resolution, channels] of the bytes of one image. Raises DataError, whatever they are."""
    Image, ImageOps = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of its size, or of damage that Pillow would mend by guessing
            if content.startswith(PNG):
                Image.open(io.BytesIO(content), formats=["PNG"]).verify()  # checksums, which decoding skips
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_decodable(image)
                image = _flattened(ImageOps.exif_transpose(image), channels)
    except Exception as error:  # a decoder of foreign bytes may raise anything
        raise DataError(f"{where} cannot be used: {error}", why=WHY, fix="mend it, or take it out and prepare again") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    resized = square.resize((resolution, resolution), Image.Resampling[filter.upper()])
    return np.asarray(resized).reshape(resolution, resolution, channels)


def _check_decodable(image: Any) -> None:
    """Raise ValueError if the header describes an image that must not be decoded."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS}")
    if image.mode not in MODES:
        raise ValueError(f"its pixels are of the kind {image.mode}; 8 bits a channel are read")
    if image.format in ("PNG", "WEBP") and image.is_animated:
        raise ValueError("it is animated")


def _flattened(image: Any, channels: int) -> Any:
    """The image with 1 or 3 channels, on white where it is transparent."""
    if image.has_transparency_data:
        Image, _ = _pillow()
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(
            "images are decoded by Pillow, which is not installed",
            fix="pip install 'hamflow[pipeline]' (or pip install pillow), then prepare again",
        ) from error
    return Image, ImageOps
