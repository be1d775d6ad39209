"""Small files in the formats of published data sets."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from hamflow.data import cifar10, fashion_mnist, finding, fluent_emoji
from hamflow.files import fingerprint

EMOJI = (
    "1f44b",
    "1f44b-1f3fb",
    "1f44b-1f3ff",
    "1f306",
    "1f344",
    "1f380",
    "1f3bc",
    "2764-fe0f",
    "1f1e7-1f1f2",
    "1f600",
    "1f603",
)
EMOJI += ("1f3cb-fe0f", "1f3cb-1f3fd", "1f481", "1f481-1f3fc")  # whose first code points are held out


class Python2(pickle._Pickler):
    """Writes what Python 2 wrote: texts are bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, value):
        content = value.encode() if isinstance(value, str) else bytes(value)
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_text


def pickled(value) -> bytes:
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")  # as it was called then


def tarred(files) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return file.getvalue()


def encoded(array, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No files of this machine's are found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(finding.VARIABLE, raising=False)


@pytest.fixture(scope="session")
def fashion_files(tmp_path_factory):
    """(folder, images, labels, {name: sha256}): 20 for training, 10 held out."""
    folder, rng = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    kept, digests = [], {}
    for part, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        kept.append((images, labels))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
            digests[f"{part}-{kind}-ubyte"] = hashlib.sha256(content).hexdigest()
    return folder, *map(np.concatenate, zip(*kept, strict=True)), digests


@pytest.fixture
def fashion(fashion_files, monkeypatch):
    """(folder, images, labels), taken for Fashion-MNIST."""
    monkeypatch.setattr(fashion_mnist, "SHA256", fashion_files[3])
    return fashion_files[:3]


@pytest.fixture(scope="session")
def cifar_files(tmp_path_factory):
    """(archive, images, labels, {name: content}) of six batches of ten, the last held out."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    labels = np.tile(np.arange(10)[::-1], 6)
    files = {}
    for index, name in enumerate(cifar10.BATCHES):
        rows = slice(10 * index, 10 * index + 10)
        planes = images[rows].transpose(0, 3, 1, 2).reshape(10, -1).copy(order="CF"[index % 2])
        files[name] = pickled({"labels": labels[rows].tolist(), "data": planes, "filenames": ["a.png"] * 10})
    path = tmp_path_factory.mktemp("cifar") / "cifar-10-python.tar.gz"
    within = {f"cifar-10-batches-py/{name}": content for name, content in files.items()}
    path.write_bytes(tarred({**within, "cifar-10-batches-py/readme.html": b"<html>"}))
    return path, images, labels, files


@pytest.fixture
def cifar(cifar_files, monkeypatch):
    """(archive, images, labels, {name: content}), taken for CIFAR-10."""
    path, *_, files = cifar_files
    monkeypatch.setattr(cifar10, "BATCHES", {name: hashlib.md5(content).hexdigest() for name, content in files.items()})
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return cifar_files


@pytest.fixture(scope="session")
def emoji_files(tmp_path_factory):
    """(archive of npm, {name: RGBA}, {name: content}); the pictures have 64 x 64 pixels."""
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (64, 64, 4), dtype=np.uint8) for name in EMOJI}
    files = {f"{name}.webp": encoded(array, "WEBP", lossless=True, exact=True) for name, array in pictures.items()}
    path = tmp_path_factory.mktemp("emoji") / "emoji.tgz"
    path.write_bytes(tarred({"package/package.json": b"{}"} | {f"package/assets/{name}": c for name, c in files.items()}))
    return path, pictures, files


@pytest.fixture
def emoji(emoji_files, monkeypatch):
    """(archive, {name: RGBA}, {name: content}), taken for Fluent Emoji."""
    for tones in (True, False):
        files = {name: content for name, content in emoji_files[2].items() if tones or "-1f3f" not in name}
        digest = fingerprint({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
        monkeypatch.setitem(fluent_emoji.CONTENTS, tones, digest)
    return emoji_files


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """(folder, images): as NVlabs' dataset_tool writes them."""
    folder, images = tmp_path_factory.mktemp("faces"), np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    (folder / "00000").mkdir()
    for index, image in enumerate(images):
        (folder / "00000" / f"img{index:08d}.png").write_bytes(encoded(image))
    (folder / "dataset.json").write_text('{"labels": null}')
    return folder, images


@pytest.fixture
def published(fashion, cifar, emoji, faces):
    """The options by which the small files are prepared, by source."""
    return {
        "fashion_mnist": {"path": str(fashion[0])},
        "cifar10": {"path": str(cifar[0])},
        "fluent_emoji32": {"path": str(emoji[0])},
        "fluent_emoji64": {"path": str(emoji[0])},
        "ffhq64": {"path": str(faces[0]), "count": len(faces[1])},
    }


@pytest.fixture(scope="session")
def encode():
    """The bytes of an image file, of its pixels."""
    return encoded


@pytest.fixture
def zipped(tmp_path):
    """Write files to an archive; returns its path."""

    def write(files, name="images.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
        return tmp_path / name

    return write
