"""Fashion-MNIST: 60,000 + 10,000 real grey images of articles of clothing, 28 x 28 pixels, 10 classes."""

import math
from functools import cache
from typing import Literal

import numpy as np

from hamflow.data.finding import Download, Published, read_known
from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import fingerprint

SIDE = 28
PADDED, AVERAGED = 32, 16
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
PARTS = ("train", "t10k")
SHA256 = {  # of the unpacked files, whichever way they were packed
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
HOME = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
PUBLISHED = Published(
    "fashion_mnist",
    names=("FashionMNIST/raw",),
    packages=("/usr/share/datasets/fashion-mnist",),
    install="apt-get install dataset-fashion-mnist",
    downloads=tuple(
        Download(f"{HOME}/{name}.gz", sha256)
        for name, sha256 in {
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        }.items()
    ),
)
HOW = {PADDED: "two black pixels around each", SIDE: "as they are", AVERAGED: "means over equal areas"}


@register("fashion_mnist")
def fashion_mnist(path: str = "", resolution: Literal[32, 28, 16] = 32) -> Source:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747); its test part is held out.

    Args:
        path: a folder or archive with the four files, packed (.gz) or not; empty: see `Published.find`.
        resolution: 32 (padded with black), 28 (as they are) or 16 (means over areas of 1.75 x 1.75 pixels).
    Raises:
        ConfigurationError: the files are nowhere. DataError: they are others.
    """
    read = cache(lambda: _read(path))
    return Source(
        "image",
        read=lambda: (resized(read()[0], resolution), read()[1]),
        shape=(1, resolution, resolution),
        box=(-1.0, 1.0),
        licence="MIT",
        origin=f"Fashion-MNIST, {resolution} x {resolution} pixels ({HOW[resolution]})",
        class_names=lambda: CLASSES,
        digest=lambda: fingerprint(SHA256),
        held_out=lambda: read()[2],
    )


def resized(images: np.ndarray, resolution: int) -> np.ndarray:
    """Images uint8 [N, 28, 28, 1] at another resolution, [N, resolution, resolution, 1].

    The means are those of the image as a function that is constant on each pixel. In units of a quarter of a pixel the areas
    are integers and their sum 49 is odd, so that float32 is exact and rounding meets no tie: all machines give equal bytes.
    """
    if resolution == SIDE:
        return images
    if resolution == PADDED:
        edge = (PADDED - SIDE) // 2
        return np.pad(images, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    weights = overlaps().astype(np.float32)
    means = np.empty((len(images), AVERAGED, AVERAGED, 1), np.uint8)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096, ..., 0].astype(np.float32)
        means[start : start + 4096, ..., 0] = np.rint(weights @ part @ weights.T / np.square(weights[0].sum()))
    return means


def overlaps() -> np.ndarray:
    """How many quarters of each of 28 pixels lie in each of 16 equal parts of a line, int64 [16, 28]; a row's sum is 7."""
    of_quarter = np.arange(4 * SIDE)
    table = np.zeros((AVERAGED, SIDE), np.int64)
    np.add.at(table, (of_quarter * AVERAGED // (4 * SIDE), of_quarter // 4), 1)
    return table


def _read(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28, 1], labels int64 [N], which are the test part bool [N]."""
    place = PUBLISHED.find(path)
    files = read_known(place, SHA256, "Fashion-MNIST")
    images = [_idx(files[f"{part}-images-idx3-ubyte"], str(place)) for part in PARTS]
    labels = [_idx(files[f"{part}-labels-idx1-ubyte"], str(place)) for part in PARTS]
    held_out = np.repeat([False, True], [len(part) for part in images])
    return np.concatenate(images)[..., None], np.concatenate(labels).astype(np.int64), held_out


def _idx(content: bytes, where: str) -> np.ndarray:
    """The array of an IDX file of bytes: 0, 0, 8, the number of dimensions, each as four bytes, the values."""
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 4 else 0
    start = 4 * (1 + dimensions)
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if not dimensions or len(content) - start != math.prod(shape):
        raise DataError(f"{where} has a file that is no IDX file of bytes", fix="get it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
