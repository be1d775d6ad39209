"""The user's own images: what becomes of their pixels, their order and their classes, and what is refused."""

import io
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from hamflow import cli, data
from hamflow.data import images
from hamflow.errors import ConfigurationError, DataError
from hamflow.methods.base import Facts

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def encoded(array, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array, mode)
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def zipped(tmp_path):
    """Write files to an archive; returns its path."""

    def write(files, name="images.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
        return tmp_path / name

    return write


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


def test_images_of_the_right_size_keep_every_pixel(zipped):
    array = pixels(4, 4, 4, 3)
    found, labels = read(zipped({f"{index}.png": encoded(image) for index, image in enumerate(array)}))
    assert np.array_equal(found, array)
    assert labels is None


def test_the_order_is_that_of_the_names(zipped):
    files = {name: encoded(np.full((4, 4), grey, np.uint8)) for name, grey in (("b.png", 2), ("c.png", 3), ("a.png", 1))}
    found, _ = read(zipped(files), channels=1)
    assert found[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_the_middle_square_is_kept(zipped):
    array = pixels(6, 11, 3)  # odd: the column that cannot be halved is on the right
    found, _ = read(zipped({"wide.png": encoded(array), "zigh.png": encoded(array.transpose(1, 0, 2).copy())}), resolution=6)
    assert np.array_equal(found[0], array[:, 2:8])
    assert np.array_equal(found[1], array[:, 2:8].transpose(1, 0, 2))


def test_halving_by_the_box_filter_is_the_mean_of_four(zipped):
    array = pixels(8, 8)
    found, _ = read(zipped({"a.png": encoded(array)}), channels=1, filter="box")
    rows = np.floor(array.reshape(8, 4, 2).mean(2) + 0.5)  # Pillow resizes rows, then columns, each to whole levels
    assert np.array_equal(found[0, ..., 0], np.floor(rows.reshape(4, 2, 4).mean(1) + 0.5))


@pytest.mark.parametrize("filter", images.FILTERS)
def test_every_filter_keeps_a_flat_image(zipped, filter):
    found, _ = read(zipped({"a.png": encoded(np.full((9, 7, 3), 77, np.uint8))}), filter=filter)
    assert np.unique(found).tolist() == [77]


def test_grey_is_the_luma_of_itu_601_and_rgb_of_grey_is_grey(zipped):
    array = pixels(4, 4, 3)
    grey, _ = read(zipped({"a.png": encoded(array)}), channels=1)
    assert np.abs(grey[0, ..., 0] - array @ [0.299, 0.587, 0.114]).max() <= 1
    rgb, _ = read(zipped({"a.png": encoded(array[..., 0])}))
    assert np.array_equal(rgb[0], array[..., [0]].repeat(3, 2))


def test_what_is_transparent_becomes_white(zipped):
    array = pixels(4, 4, 4)
    array[..., 3] = [0, 0, 255, 255]
    found, _ = read(zipped({"a.png": encoded(array)}))
    assert (found[0, :, :2] == 255).all()
    assert np.array_equal(found[0, :, 2:], array[:, 2:, :3])


def test_a_photograph_is_turned_upright(zipped):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top of the scene is the right-hand side of the file
    array = pixels(4, 4, 3)
    found, _ = read(zipped({"a.png": encoded(array, exif=exif)}))
    assert np.array_equal(found[0], np.rot90(array, -1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(zipped, kind):
    array = np.add.outer(np.arange(0, 128, 4), np.arange(0, 128, 4)).astype(np.uint8)[..., None].repeat(3, 2)
    found, _ = read(zipped({f"a.{kind.lower()}": encoded(array, kind, quality=95)}), resolution=32)
    assert np.abs(found[0].astype(int) - array).mean() < 3


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (["dog/1.png", "cat/1.png", "cat/2.png"], ["cat", "dog"], [0, 0, 1]),
        (["all/dog/1.png", "all/cat/1.png"], ["cat", "dog"], [0, 1]),
        (["cat/young/1.png", "cat/old/1.png", "dog/1.png"], ["cat", "dog"], [0, 0, 1]),
        (["one/1.png", "one/2.png"], [], None),
        (["1.png", "2.png"], [], None),
        (["10/1.png", "9/1.png", "010/1.png", "x/1.png"], ["9", "010", "10", "x"], [1, 2, 0, 3]),
        (["catalogue/1.png", "cat/1.png"], ["cat", "catalogue"], [0, 1]),
        (["a\u3000b/1.png", "a\u202fb/1.png", "c/1.png"], ["a b", "a b", "c"], [0, 1, 2]),
    ],
)
def test_folders_are_classes(zipped, names, classes, labels):
    source = build(zipped({name: encoded(pixels(4, 4)) for name in names}))
    _, found = source.read()
    assert source.class_names() == tuple(classes)
    assert (found.tolist() if labels else found) == labels


def test_images_in_folders_and_beside_them_are_refused(zipped):
    with pytest.raises(DataError, match="in folders, such as cat/1.png, and beside them, such as 2.png"):
        read(zipped({"cat/1.png": encoded(pixels(4, 4)), "2.png": encoded(pixels(4, 4))}))


def test_other_files_are_left_out_and_counted(zipped, tmp_path, capsys):
    image = encoded(pixels(4, 4))
    others = {"README.md": b"", "__MACOSX/._1.png": b"", ".hidden/1.png": image, "inner.zip": b"PK", "a/.DS_Store": b""}
    others |= {"a/LICENSE": b"free", "a/b.md": b"", "a/Icon\r": b""}
    named = {"a/1.PNG": image, "a/2.jpg": image, "a/without": image, "a/3.png": image}
    manifest = prepare(zipped(named | others), tmp_path / "mine")
    assert manifest["contents"]["endings"] == {".jpg": 1, ".png": 2, "none": 1}
    assert manifest["contents"]["left_out"] == {
        "hidden": 3,
        "no image (.md)": 2,
        "no image (.zip)": 1,
        "no image, without an ending": 2,
    }
    told = capsys.readouterr().out
    assert "mine: 4 rows, 4 for training, 0 held out" in told
    assert "left out: 3 hidden, 2 no image (.md)" in told


def test_a_collection_without_images_is_refused(zipped):
    with pytest.raises(DataError, match="there is no image"):
        read(zipped({"README.md": b""}))


def test_a_folder_and_its_archive_give_the_same_arrays(zipped, tmp_path):
    files = {f"{kind}/{index}.png": encoded(pixels(5, 6, 3)) for kind in "ab" for index in range(3)}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    archive = zipped(dict(reversed(files.items())))
    one, other = prepare(archive, tmp_path / "one"), prepare(tmp_path / "folder", tmp_path / "other")
    for array in ("images.npy", "labels.npy"):
        assert one["sha256"][array] == other["sha256"][array]


def test_the_manifest_names_the_very_bytes(zipped, tmp_path):
    """Of an archive, and of a folder in which one byte of one file, or one name, is another."""
    from hamflow.files import sha256_of

    archive = zipped(some())
    assert prepare(archive, tmp_path / "mine")["sha256"]["source"] == sha256_of(archive)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in ({"a.jpg": encoded(pixels(4, 4), "JPEG")} | some()).items():
        (folder / name).write_bytes(content)
    digests = [prepare(folder, tmp_path / "mine")["sha256"]["source"]]
    (folder / "a.jpg").rename(folder / "b.jpg")
    digests.append(prepare(folder, tmp_path / "mine")["sha256"]["source"])
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes() + b"\0")
    digests.append(prepare(folder, tmp_path / "mine")["sha256"]["source"])
    assert len(set(digests)) == 3


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
    "numbers": encoded(RNG.normal(size=(4, 4)).astype(np.float32), "TIFF"),
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
