"""Handwritten digits: 1,797 real grey images of 8 x 8, from inside scikit-learn."""

import zlib
from importlib import resources
from pathlib import Path

import numpy as np

from hamflow.data.sources import Source, register
from hamflow.errors import DataError
from hamflow.files import sha256_of

FILE = ("sklearn.datasets.data", "digits.csv.gz")
LEVELS = 16  # the file's grey values are 0..16
SIDE = 8


@register("digits")
def digits() -> Source:
    """Test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998); no options."""
    return Source(
        "image",
        _read,
        shape=(1, SIDE, SIDE),
        box=(-1.0, 1.0),
        licence="BSD-3-Clause (as part of scikit-learn)",
        origin="scikit-learn, load_digits: UCI Optical Recognition of Handwritten Digits, test part",
        class_names=lambda: tuple("0123456789"),
        digest=lambda: sha256_of(_file()),
    )


def _file() -> Path:
    try:
        return Path(str(resources.files(FILE[0]) / FILE[1]))
    except ModuleNotFoundError as error:
        raise DataError(
            "the digits are inside scikit-learn, which is not installed",
            fix="pip install 'hamflow[pipeline]' (or pip install scikit-learn), then prepare again",
        ) from error


def _read() -> tuple[np.ndarray, np.ndarray]:
    path = _file()
    try:
        table = np.loadtxt(path, delimiter=",")
        if table.shape[1:] != (SIDE * SIDE + 1,):
            raise ValueError(f"{table.shape} is not a table of {SIDE * SIDE} pixels and a label")
        pixels, labels = table[:, :-1], table[:, -1]
        if pixels.min() < 0 or pixels.max() > LEVELS or not np.isin(labels, range(10)).all():
            raise ValueError("a grey value or a label is out of range")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{path} is not the digits' file ({error})",
            why="a truncated or altered file would give other images under the same name",
            fix="pip install --force-reinstall --no-deps scikit-learn, then prepare again",
        ) from error
    images = np.rint(pixels * 255 / LEVELS).astype(np.uint8)
    return images.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int64)
