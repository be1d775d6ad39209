"""Classes and parts of a collection of images: by folders, or by the label file of NVlabs' dataset_tool."""

import json
import tarfile

import pytest
from PIL import Image

from hamflow import data
from hamflow.data.classes import arrange, read_labels
from hamflow.errors import ConfigurationError, DataError


def names(counts):
    return sorted(f"{folder}/{index}.png" for folder, count in counts.items() for index in range(count))


def write(root, counts, labels=None):
    """Pictures, each of another grey, in folders; and a label file."""
    for grey, name in enumerate(names(counts)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), grey).save(root / name)
    if labels is not None:
        (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


def prepare(path, folder, **options):
    spec = {"name": "mine", "source": "images", "options": {"path": str(path), "resolution": 4, "channels": 1, **options}}
    return data.prepare(spec, folder)


@pytest.mark.parametrize(
    ("counts", "classes", "held"),
    [
        ({"train/cat": 2, "train/dog": 1, "val/cat": 1, "val/dog": 1}, ["cat", "dog"], 2),
        ({"Training/cat": 2, "Training/dog": 1, "TEST/cat": 1}, ["cat", "dog"], 1),
        ({"set/train2017/a": 2, "set/train2017/b": 1, "set/val2017/a": 1}, ["a", "b"], 1),
        ({"train": 3, "val": 1, "test": 2}, [], 3),
        ({"cat/train": 2, "cat/test": 1, "dog/train": 2, "dog/test": 3}, ["cat", "dog"], 4),
        ({"train/images/7": 1, "train/images/10": 1, "val/images/7": 1}, ["7", "10"], 1),
        ({"train/only": 3, "test/only": 1}, [], 1),
    ],
)
def test_train_and_val_or_test_side_by_side_are_parts_and_no_classes(counts, classes, held):
    found = arrange("it", names(counts), {})
    assert found.classes == tuple(classes)
    assert found.held_out.sum() == held
    if classes:
        for name, label in zip(names(counts), found.labels, strict=True):
            assert classes[label] in name.split("/")


@pytest.mark.parametrize(
    "counts",
    [
        {"train/cat": 2, "val/cat": 1, "extra/cat": 1},
        {"val/cat": 1, "test/cat": 1},
        {"test": 1, "cat": 1, "dog": 1},
        {"train/cat": 1, "train/dog": 1, "bus": 1},
        {"train": 1, "training": 1},
        {"cat/train": 1, "cat/test": 1, "dog": 2},
    ],
)
def test_names_of_parts_that_may_be_classes_are_refused(counts):
    with pytest.raises(DataError, match="cannot be told whether here they are classes"):
        arrange("it", names(counts), {})


def test_a_class_of_trains_is_a_class():
    assert arrange("it", names({"bus": 1, "car": 1, "train": 1}), {}).classes == ("bus", "car", "train")


def test_the_parts_of_a_folder_are_those_of_the_data_set(tmp_path, capsys):
    counts = {"train/1": 3, "train/2": 2, "train/10": 3, "val/1": 1, "val/10": 2}
    manifest = prepare(write(tmp_path / "in", counts), tmp_path / "mine")
    train = data.load(tmp_path / "mine", verify=True)
    assert manifest["class_names"] == ["1", "2", "10"]
    assert manifest["class_counts"] == {"train": [3, 2, 3], "test": [1, 0, 2]}
    greys = {name: grey for grey, name in enumerate(names(counts))}
    for part, rows in (("train", train), ("val", train.test())):
        found = sorted(
            (int(row[0, 0, 0]), manifest["class_names"][label]) for row, label in zip(rows.rows, rows.labels, strict=True)
        )
        assert found == sorted((grey, name.split("/")[1]) for name, grey in greys.items() if name.startswith(part))
    assert "classes: 1 3 + 1, 2 2 + 0, 10 3 + 2" in capsys.readouterr().out


def test_a_class_that_is_only_held_out_is_refused(tmp_path):
    with pytest.raises(DataError, match="without a training row, such as dog"):
        prepare(write(tmp_path / "in", {"train/cat": 4, "val/cat": 2, "val/dog": 2}), tmp_path / "mine")


def test_a_share_to_be_held_out_beside_a_part_that_is_held_out_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="held-out part of its own"):
        prepare(write(tmp_path / "in", {"train": 4, "val": 2}), tmp_path / "mine", holdout=0.1)


LABELS = [["00000/0.png", 7], ["00000/1.png", 7], ["00001/0.png", 10], ["00001/1.png", 7]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "ffhq"])
def test_a_label_file_says_the_classes_and_folders_are_none(tmp_path, packed, below):
    root = write(tmp_path / "in" / below, {"00000": 2, "00001": 2}, LABELS)
    path = tmp_path / "in"
    if packed:
        path = tmp_path / "in.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(root, below or ".")
    manifest = prepare(path, tmp_path / "mine")
    assert manifest["class_names"] == ["7", "10"]
    assert data.load(tmp_path / "mine").labels.tolist() == [0, 0, 1, 0]
    assert manifest["contents"]["left_out"] == {}


def test_the_digest_of_a_folder_is_also_of_its_labels(tmp_path):
    root = write(tmp_path / "in", {"00000": 2, "00001": 2}, LABELS)
    digests = [prepare(root, tmp_path / "mine")["sha256"]["source"]]
    (root / "dataset.json").write_text(json.dumps({"labels": [*LABELS[:3], ["00001/1.png", 10]]}))
    digests.append(prepare(root, tmp_path / "mine")["sha256"]["source"])
    assert len(set(digests)) == 2


def test_a_label_file_without_labels_says_that_there_are_no_classes():
    assert arrange("it", names({"00000": 2, "00001": 2}), {"": {}}).labels is None


def test_each_part_may_have_its_own_label_file():
    every = names({"train/00000": 2, "val/00000": 1})
    found = arrange("it", every, {"train": {"00000/0.png": 3, "00000/1.png": 0}, "val": {"00000/0.png": 3}})
    assert (found.classes, found.labels.tolist(), found.held_out.tolist()) == (("0", "3"), [1, 0, 1], [False, False, True])


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (LABELS[:3], "no label for 00001/1.png"),
        ([*LABELS, ["00001/2.png", 1]], "labels for 1 images that are not there"),
        ([*LABELS, LABELS[0]], "twice"),
        ([[name, [0.5, 1.0]] for name, _ in LABELS], r"labels\[0\]"),
        ([[name, True] for name, _ in LABELS], r"labels\[0\]"),
        ([[name, -1] for name, _ in LABELS], "no class"),
        ([[name, 10**12] for name, _ in LABELS], "no class"),
        ({name: label for name, label in LABELS}, "no list"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(tmp_path, labels, told):
    with pytest.raises(DataError, match=told):
        prepare(write(tmp_path / "in", {"00000": 2, "00001": 2}, labels), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"labels": NaN}', b"[" * 10**5, b'{"labels": ["\\u0000"]}'])
def test_a_damaged_label_file_is_refused(content):
    with pytest.raises(DataError, match="label file"):
        read_labels("it", content)


def test_another_json_file_of_that_name_is_left_out():
    assert read_labels("it", b'{"info": 3}') is None


def test_labels_that_change_while_the_images_are_read_are_refused(tmp_path):
    root = write(tmp_path / "in", {"00000": 2, "00001": 2}, LABELS)
    source = data.build("images", {"path": str(root), "resolution": 4})
    assert source.class_names() == ("7", "10")
    (root / "dataset.json").write_text(json.dumps({"labels": [[name, 0] for name, _ in LABELS]}))
    with pytest.raises(DataError, match="other labels"):
        source.read()
