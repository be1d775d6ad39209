"""The user's own images: what is refused, in a paragraph that names it, and what changes while it is read."""

import sys
import zlib

import numpy as np
import pytest
from pictures import encoded, pixels, prepare, read, some
from PIL import Image

from hamflow import cli, data
from hamflow.data import images
from hamflow.errors import ConfigurationError, DataError
from hamflow.methods.base import Facts


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png_that_claims(width, height):
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    pieces = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


ANIMATED = {"save_all": True, "append_images": [Image.fromarray(pixels(4, 4, 3))]}
UNUSABLE = {
    "empty": b"",
    "text": b"hello",
    "another format": encoded(pixels(4, 4, 3), "PPM"),
    "several pages": encoded(Image.fromarray(pixels(4, 4, 3)), "TIFF", **ANIMATED),
    "a bomb": png_that_claims(10**6, 10**6),
    "just too large": png_that_claims(2**13, 2**13 + 1),
    "without pixels": png_that_claims(0, 0),
    "numbers": encoded(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32), "TIFF"),
    "animated PNG": encoded(Image.fromarray(pixels(4, 4, 3)), "PNG", **ANIMATED),
    "animated WebP": encoded(Image.fromarray(pixels(4, 4, 3)), "WEBP", **ANIMATED),
    "a flipped bit": encoded(pixels(40, 40), compress_level=0).replace(b"IDAT", b"IDAT", 1)[:900]
    + b"\0"
    + encoded(pixels(40, 40), compress_level=0)[901:],
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_decoded_is_a_paragraph_that_names_it(zipped, tmp_path, case):
    path = zipped({"good.png": encoded(pixels(4, 4)), "wrong.png": UNUSABLE[case]})
    with pytest.raises(DataError, match=r"images.zip: wrong.png cannot be used"):
        prepare(path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": ""}, "path"),
        ({"path": 3}, "path"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": 2000}, "resolution"),
        ({"resolution": 8.0}, "resolution"),
        ({"resolution": True}, "resolution"),
        ({"channels": 4}, "channels"),
        ({"channels": True}, "channels"),
        ({"channels": 1.0}, "channels"),
        ({"filter": "nearest"}, "filter"),
        ({"filter": ["box"]}, "filter"),
        ({"licence": None}, "licence"),
        ({"rezolution": 8}, "resolution"),
    ],
)
def test_an_impossible_option_is_named(zipped, options, told):
    path = zipped({"a.png": encoded(pixels(4, 4))})
    with pytest.raises(ConfigurationError, match=told):
        data.build("images", {"path": str(path), "resolution": 4, **options})


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no folder or archive"):
        read(tmp_path / "absent")


def test_a_collection_that_changes_while_it_is_read_is_refused(zipped):
    path = zipped({"a.png": encoded(pixels(4, 4)), "b.png": encoded(pixels(4, 4))})
    source = data.build("images", {"path": str(path), "resolution": 4})
    assert source.class_names() == ()
    zipped({"a.png": encoded(pixels(4, 4))})
    with pytest.raises(DataError, match="changed while it was read: b.png went"):
        source.read()


def changing(monkeypatch, change):
    """Do something as soon as the first image has been read."""
    decode = images.pixels.decode

    def first(*arguments):
        monkeypatch.setattr(images.pixels, "decode", decode)
        change()
        return decode(*arguments)

    monkeypatch.setattr(images.pixels, "decode", first)


def test_an_archive_that_is_replaced_by_one_of_the_same_names_while_it_is_read_is_refused(zipped, tmp_path, monkeypatch):
    path, other = (zipped(some(), f"{stem}.zip") for stem in ("images", "other"))
    changing(monkeypatch, lambda: other.replace(path))
    with pytest.raises(DataError, match="changed while it was read: it has other bytes"):
        prepare(path, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_digest_of_a_folder_is_of_the_bytes_that_were_read(tmp_path, monkeypatch):
    """Not of those that lie there a moment later."""
    old, new, folder = encoded(pixels(4, 4)), encoded(pixels(4, 4)), tmp_path / "folder"
    folder.mkdir()
    for name, content in ({"a.png": old} | some(prefix="b")).items():
        (folder / name).write_bytes(content)
    before = prepare(folder, tmp_path / "before")
    changing(monkeypatch, lambda: (folder / "a.png").write_bytes(new))
    meanwhile = prepare(folder, tmp_path / "meanwhile")
    after = prepare(folder, tmp_path / "after")
    assert meanwhile["sha256"] == before["sha256"]
    assert after["sha256"]["source"] != before["sha256"]["source"]


def test_more_images_than_there_is_memory_are_a_paragraph(zipped, monkeypatch):
    def fail(*_):
        raise MemoryError("Unable to allocate")

    path = zipped({"a.png": encoded(pixels(4, 4))})
    monkeypatch.setattr(images.np, "empty", fail)
    with pytest.raises(DataError, match=r"1 images of 1024 x 1024 take 0 GiB of memory .*\n  Fix: a smaller resolution"):
        read(path, resolution=1024)


def test_more_bytes_of_images_than_an_array_may_have_are_a_paragraph(zipped, monkeypatch):
    monkeypatch.setattr(images, "LARGEST_ARRAY", 47)
    with pytest.raises(DataError, match="Fix: a smaller resolution"):
        read(zipped({"a.png": encoded(pixels(4, 4))}))


def test_without_pillow_the_paragraph_says_what_to_install(zipped, monkeypatch):
    path = zipped({"a.png": encoded(pixels(4, 4))})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="pip install"):
        read(path)


def test_a_conditional_model_of_images_without_classes_is_refused(zipped, tmp_path):
    prepare(zipped(some()), tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="`datasets.mine.conditional` is true"):
        Facts.of({"conditional": True, "network": {}}, data.load(tmp_path / "mine"))


def test_the_command_line_prepares_an_archive_and_refuses_a_hostile_one(zipped, tmp_path, capsys):
    entry = "datasets.pictures={label: x, source: images, conditional: false, network: unet, features: efficientnet_lite0, "
    entry += "n_samples: 2, training: {}, options: {path: PATH, resolution: 4}}"
    arguments = ["prepare", "quickstart/pictures", "--params", "params.yaml", "--output", str(tmp_path / "out"), "--set"]
    good = zipped(some(), "good.zip")
    hostile = zipped({"1.png": encoded(pixels(4, 4)), "../../2.png": encoded(pixels(4, 4))}, "hostile.zip")
    assert cli.main([*arguments, entry.replace("PATH", str(good))]) == 0
    assert data.load(tmp_path / "out", verify=True).count == 4
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert cli.main([*arguments, entry.replace("PATH", str(hostile))]) == 2
    assert "DataError" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
