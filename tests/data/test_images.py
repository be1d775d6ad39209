"""The user's own images: what becomes of their pixels, their order and their classes."""

import numpy as np
import pytest
from pictures import build, encoded, pixels, prepare, read, some
from PIL import Image

from hamflow.data import images
from hamflow.errors import DataError


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
