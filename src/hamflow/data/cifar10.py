"""CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 pixels, 10 classes."""

import hashlib
import pickletools
from functools import cache
from pathlib import Path

import numpy as np

from hamflow.data.finding import ALGORITHMS, Download, Published, other_bytes, read_known
from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import fingerprint

SIDE = 32
PIXELS = 3 * SIDE * SIDE  # values of an image
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MD5 = "c58f30108f718f92721af3b95e74349a"  # of the archive
BATCHES = {  # md5 of the files in it; the last one is the test part
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
TEST = "test_batch"
FILE = "cifar-10-python.tar.gz"
PUBLISHED = Published(
    "cifar10",
    names=(FILE, "cifar-10-batches-py"),
    downloads=(
        Download(
            f"https://www.cs.toronto.edu/~kriz/{FILE}", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
        ),
    ),
)


@register("cifar10")
def cifar10(path: str = "") -> Source:
    """CIFAR-10 (Krizhevsky 2009), its python version; its test part is held out.

    Args:
        path: the archive cifar-10-python.tar.gz, or the folder of its files; empty: see `Published.find`.
    Raises:
        ConfigurationError: the files are nowhere. DataError: they are others.
    """
    read = cache(lambda: _read(PUBLISHED.find(path)))
    return Source(
        "image",
        read=lambda: read()[:2],
        shape=(3, SIDE, SIDE),
        box=(-1.0, 1.0),
        licence="not stated by its authors",
        origin="CIFAR-10, python version",
        class_names=lambda: CLASSES,
        digest=lambda: fingerprint(BATCHES),
        held_out=lambda: read()[2],
    )


def _read(place: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3], labels int64 [N], which are the test part bool [N]."""
    if place.is_file():
        with open(place, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != MD5:
            raise other_bytes(place, "CIFAR-10", ALGORITHMS[len(MD5)], found, MD5)
    files = read_known(place, BATCHES, "CIFAR-10")
    batches = {name: _batch(files[name], f"{place}: {name}") for name in BATCHES}
    planes = np.concatenate([images for images, _ in batches.values()]).reshape(-1, 3, SIDE, SIDE)
    labels = np.concatenate([labels for _, labels in batches.values()])
    held_out = np.concatenate([np.full(len(labels), name == TEST) for name, (_, labels) in batches.items()])
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, held_out


def _batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Colour planes uint8 [n, 3072], red, green, blue, row by row; labels int64 [n].

    The file is Python 2's pickle of {"labels": [...], "data": array, ...}. It is not unpickled: its instructions are read, and
    the bytes of the one array and the integers between the text "labels" and the next text are taken from them.
    """
    labels: list[int] = []
    images, key, order = b"", "", "C"
    try:
        for instruction, value, _ in pickletools.genops(content):
            if instruction.name in ("NEWTRUE", "NEWFALSE"):  # whether the array lies column by column
                order = "F" if instruction.name == "NEWTRUE" else "C"
            elif isinstance(value, int) and instruction.name == "BININT1" and key == "labels":
                labels.append(value)
            elif isinstance(value, str) and instruction.name.endswith("STRING"):
                key, images = value[:10], value.encode("latin1") if len(value) >= PIXELS else images
        planes = np.frombuffer(images, np.uint8).reshape(len(labels), PIXELS, order=order)  # type: ignore[call-overload]
        if not labels or max(labels) >= len(CLASSES):
            raise ValueError("its labels are no classes")
    except ValueError as error:
        raise DataError(f"{where} is no batch of CIFAR-10 ({error})", fix=f"get {FILE} again") from error
    return planes, np.array(labels, dtype=np.int64)
