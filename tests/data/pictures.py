"""Small pictures, and data sets of them, for the tests of images."""

import io

import numpy as np
from PIL import Image

from hamflow import data

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(array, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array, mode)
    image.save(file, kind, **options)
    return file.getvalue()


def build(path, resolution=4, **options):
    return data.build("images", {"path": str(path), "resolution": resolution, **options})


def read(path, resolution=4, **options):
    return build(path, resolution, **options).read()


def some(count=4, prefix=""):
    """As many images as a data set needs."""
    return {f"{prefix}{index}.png": encoded(pixels(4, 4)) for index in range(count)}


def prepare(path, folder, **options):
    spec = {"name": "mine", "source": "images", "options": {"path": str(path), "resolution": 4, **options}}
    return data.prepare(spec, folder)
