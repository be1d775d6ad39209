"""Prepared data sets: the same bytes for the same spec, whole or absent, and checked when they are read."""

import numpy as np
import pytest
import torch
from PIL import Image

from hamflow import data
from hamflow.data import preparation
from hamflow.data.sources import _SOURCES, Source
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import read_json, write_json

SMALL = {"checkerboard": {"count": 300}, "gaussian_mixture": {"count": 300}, "rings": {"count": 300}}


@pytest.fixture(autouse=True, scope="module")
def pictures(tmp_path_factory):
    """Somebody's files for the source `images`."""
    folder = tmp_path_factory.mktemp("pictures")
    grey = np.random.default_rng(0).integers(0, 256, (12, 9, 7), dtype=np.uint8)
    for index, rows in enumerate(grey):
        path = folder / "abc"[index % 3] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rows).save(path)
    SMALL["images"] = {"path": str(folder), "resolution": 4}


def spec_of(source: str, **options) -> dict:
    return {"name": source, "source": source, "options": {**SMALL.get(source, {}), **options}}


@pytest.fixture(params=data.names())
def prepared(request, tmp_path, published, monkeypatch):
    for source, options in published.items():
        monkeypatch.setitem(SMALL, source, options)
    data.prepare(spec_of(request.param), tmp_path / request.param)
    return tmp_path / request.param


def files_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_specs_give_equal_bytes(prepared, tmp_path):
    data.prepare(spec_of(prepared.name), tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(prepared)


def test_the_folder_holds_the_contract_s_files_and_no_other(prepared):
    dataset = data.load(prepared)
    expected = {"dataset.json", "images.npy" if dataset.kind == "image" else "points.npy"}
    assert set(files_of(prepared)) == expected | ({"labels.npy"} if dataset.classes else set())


def test_the_manifest_tells_the_truth(prepared):
    dataset = data.load(prepared, verify=True)
    x, labels = dataset.batch(range(dataset.count))
    assert x.dtype == torch.float32
    assert tuple(x.shape) == (dataset.count, *dataset.shape)
    low, high = dataset.box
    assert low <= x.min() <= x.max() <= high
    assert dataset.sigma_data == pytest.approx(x.double().std(correction=0).item(), rel=1e-6)
    assert (labels is not None) == (dataset.classes > 0) == (len(dataset.manifest["class_names"]) > 0)
    if labels is not None:
        assert set(labels.tolist()) == set(range(dataset.classes))


def test_rows_are_mapped_not_read(prepared):
    assert isinstance(data.load(prepared).rows, np.memmap)


def test_a_batch_is_its_rows(prepared):
    dataset = data.load(prepared)
    whole, _ = dataset.batch(range(dataset.count))
    some, _ = dataset.batch(torch.tensor([7, 3, 3]))
    assert torch.equal(some, whole[[7, 3, 3]])


@pytest.mark.parametrize("index", [-1, "count"])
def test_a_row_that_is_not_there_is_refused(prepared, index):
    dataset = data.load(prepared)
    with pytest.raises(IndexError):
        dataset.batch([dataset.count if index == "count" else index])


def test_digits_are_scikit_learn_s(tmp_path):
    from sklearn.datasets import load_digits

    data.prepare(spec_of("digits"), tmp_path)
    dataset, bunch = data.load(tmp_path), load_digits()
    assert np.array_equal(dataset.rows[..., 0], np.rint(bunch.images * 255 / 16))
    assert np.array_equal(dataset.labels, bunch.target)


def test_pixels_go_to_model_space_and_back(tmp_path):
    data.prepare(spec_of("digits"), tmp_path)
    dataset = data.load(tmp_path)
    x, _ = dataset.batch(range(dataset.count))
    assert np.array_equal(dataset.to_pixels(x), dataset.rows)
    greys = torch.arange(256).reshape(-1, 1, 1, 1) / 127.5 - 1
    assert dataset.to_pixels(greys).ravel().tolist() == list(range(256))
    assert dataset.to_pixels(torch.full((1, 1, 1, 1), 7.0)).item() == 255


def test_holdout_splits_the_rows_without_loss(tmp_path):
    data.prepare(spec_of("digits"), tmp_path / "whole")
    data.prepare(spec_of("digits", holdout=0.2), tmp_path / "split")
    whole, train = data.load(tmp_path / "whole"), data.load(tmp_path / "split")
    test = train.test()
    assert (train.count, test.count) == (whole.count - round(0.2 * whole.count), round(0.2 * whole.count))

    def pairs(part):
        return [row.tobytes() + bytes([label]) for row, label in zip(part.rows, part.labels, strict=True)]

    assert sorted(pairs(train) + pairs(test)) == sorted(pairs(whole))
    assert pairs(train) + pairs(test) != pairs(whole)  # shuffled: the file is sorted by writer
    assert train.sigma_data == pytest.approx(train.batch(range(train.count))[0].double().std().item(), rel=1e-4)


def test_without_holdout_the_test_part_is_refused(prepared):
    if data.load(prepared).manifest["split"]["test"]:
        pytest.skip("the source holds out a part of its own")
    with pytest.raises(DataError, match="holdout"):
        data.load(prepared).test()


@pytest.mark.parametrize("holdout", [1, -0.1, "0.1", True, float("nan")])
def test_an_impossible_holdout_is_refused(tmp_path, holdout):
    with pytest.raises(ConfigurationError, match="holdout"):
        data.prepare(spec_of("rings", holdout=holdout), tmp_path)


def test_the_seed_changes_the_points(tmp_path):
    for seed in (0, 1):
        data.prepare(spec_of("rings", seed=seed), tmp_path / str(seed))
    first, second = (data.load(tmp_path / str(seed)) for seed in (0, 1))
    assert not np.array_equal(first.rows, second.rows)
    assert first.sha256 != second.sha256


def test_the_law_survives_the_manifest(tmp_path):
    data.prepare(spec_of("rings", radii=[2.0], sd=0.3, holdout=0.5), tmp_path)
    law = data.load(tmp_path).density()
    assert (law.radii.tolist(), law.sd) == ([2.0], 0.3)


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("digit", {}, "digits"),
        ("rings", {"radius": [1]}, "radii"),
        ("rings", {"count": "many"}, "count"),
        ("rings", {"count": 1}, "count"),
        ("rings", {"seed": -1}, "seed"),
        ("rings", {"sd": 0.0}, "sd"),
        ("gaussian_mixture", {"weights": [0.5, 0.5]}, "weights"),
        ("gaussian_mixture", {"sds": [0.1, 0.1, -0.1]}, "> 0"),
        ("gaussian_mixture", {"means": "here"}, "means"),
    ],
)
def test_what_cannot_be_is_a_paragraph(tmp_path, source, options, told):
    with pytest.raises(ConfigurationError, match=told):
        data.prepare(spec_of(source, **options), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_missing_data_set_names_what_to_type(tmp_path):
    with pytest.raises(DataError, match=r"hamflow prepare quickstart/digits"):
        data.load(tmp_path / "digits")


def corrupt(folder, how: str) -> None:
    array = next(folder.glob("[ip]*.npy"))
    content = array.read_bytes()
    manifest = read_json(folder / "dataset.json")
    if how == "truncated":
        array.write_bytes(content[: len(content) // 2])
    elif how == "headless":
        array.write_bytes(content[:20])
    elif how == "empty":
        array.write_bytes(b"")
    elif how == "absent":
        array.unlink()
    elif how == "longer":
        array.write_bytes(content + b"x")
    elif how == "pickled":
        np.save(array, np.array([{}]), allow_pickle=True)
    elif how == "other type":
        np.save(array, np.load(array).astype(np.float64))
    elif how == "other shape":
        np.save(array, np.load(array)[:-1])
    elif how == "torn manifest":
        (folder / "dataset.json").write_text('{"format": 1, "na')
    elif how == "incomplete manifest":
        write_json(folder / "dataset.json", {key: v for key, v in manifest.items() if key != "box"})
    elif how == "other format":
        write_json(folder / "dataset.json", manifest | {"format": 99})


DAMAGE = ["truncated", "headless", "empty", "absent", "longer", "pickled", "other type", "other shape"]
DAMAGE += ["torn manifest", "incomplete manifest", "other format"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_data_set_is_a_paragraph(prepared, how):
    corrupt(prepared, how)
    with pytest.raises(DataError, match="hamflow prepare"):
        data.load(prepared)


def test_one_flipped_byte_is_found_by_verifying(prepared):
    array = next(prepared.glob("[ip]*.npy"))
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    data.load(prepared)
    with pytest.raises(DataError, match="sha256"):
        data.load(prepared, verify=True)


def test_a_preparation_cut_short_leaves_no_manifest(prepared, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "save_array", fail)
    with pytest.raises(OSError, match="No space"):
        data.prepare(spec_of(prepared.name), prepared)
    with pytest.raises(DataError, match="there is no data set"):
        data.load(prepared)


@pytest.mark.parametrize("damage", ["truncated", "text", "range"])
def test_a_corrupted_source_file_is_a_paragraph(tmp_path, monkeypatch, damage):
    import gzip

    from hamflow.data import digits

    path = tmp_path / "digits.csv.gz"
    content = digits._file().read_bytes()
    table = gzip.decompress(content)
    broken = {
        "truncated": content[: len(content) // 2],
        "text": gzip.compress(table[:5000] + b"?" + table[5000:]),
        "range": gzip.compress(b"99" + table[1:]),
    }
    path.write_bytes(broken[damage])
    monkeypatch.setattr(digits, "_file", lambda: path)
    with pytest.raises(DataError, match="not the digits' file"):
        data.prepare(spec_of("digits"), tmp_path / "digits")
    assert not (tmp_path / "digits").exists()


def test_a_new_source_is_one_function(tmp_path, monkeypatch):
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    grey = np.arange(32, dtype=np.uint8).reshape(8, 2, 2, 1)

    @data.sources.register("ramp")
    def ramp(flip: bool = False) -> Source:
        return Source("image", lambda: (grey[::-1] if flip else grey, None), (-1.0, 1.0), licence="-", origin="a test")

    data.prepare(spec_of("ramp", flip=True), tmp_path)
    assert np.array_equal(data.load(tmp_path, verify=True).rows, grey[::-1])


def test_data_without_any_spread_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    flat = np.full((4, 2, 2, 1), 7, np.uint8)
    data.sources.register("flat")(lambda: Source("image", lambda: (flat, None), (-1.0, 1.0), licence="-", origin="a test"))
    with pytest.raises(DataError, match="every value of 'flat' is 7"):
        data.prepare(spec_of("flat"), tmp_path / "flat")
    assert not (tmp_path / "flat").exists()


HOSTILE = {
    "count": [-1, 1.5, "12", None, 10**30],
    "shape": [[], [1], [1, 2, 3, 4], "abc", [-1, 2, 2], [True, 2, 2], {"a": 1}, 10**9],
    "kind": ["pickle", None, [], "../x"],
    "classes": [-3, "x", None],
    "split": [None, [], {"train": 1}, {"train": -1, "test": 99}, {"train": "a", "test": "b"}],
    "sigma_data": ["x", None, True],
    "box": [[1, -1], [1], "ab", None, [None, 1]],
    "sha256": [None, {}, [], {"images.npy": 3}],
    "options": [None, []],
    "name": [None, 3],
}


@pytest.mark.parametrize("key", HOSTILE)
def test_a_manifest_that_cannot_be_is_a_paragraph(tmp_path, key):
    data.prepare(spec_of("digits"), tmp_path)
    manifest = read_json(tmp_path / "dataset.json")
    for value in HOSTILE[key]:
        write_json(tmp_path / "dataset.json", manifest | {key: value})
        with pytest.raises(DataError, match="hamflow prepare"):
            data.load(tmp_path)


def with_classes(monkeypatch, count):
    """A source `many` of so many classes, of an image each."""
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    grey = np.arange(count).astype(np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(f"n{index:08}" for index in range(count))

    @data.sources.register("many")
    def many() -> Source:
        return Source(
            "image", lambda: (grey, np.arange(count)), (-1.0, 1.0), licence="-", origin="a test", class_names=lambda: names
        )


def test_as_many_classes_as_imagenet_21k_has_are_read_back(tmp_path, monkeypatch):
    with_classes(monkeypatch, 21_841)
    data.prepare(spec_of("many"), tmp_path)
    assert data.load(tmp_path, verify=True).classes == 21_841


def test_more_classes_than_a_manifest_may_hold_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "MOST_VALUES", 400)
    with_classes(monkeypatch, 101)
    with pytest.raises(DataError, match="holds more than 100 values"):
        data.prepare(spec_of("many"), tmp_path / "many")
    assert not (tmp_path / "many").exists()


def test_a_manifest_that_vouches_for_no_array_is_refused(prepared):
    manifest = read_json(prepared / "dataset.json")
    write_json(prepared / "dataset.json", manifest | {"sha256": {"source": "0" * 64, "../../etc/passwd": "0" * 64}})
    with pytest.raises(DataError, match="not a complete manifest"):
        data.load(prepared, verify=True)


def test_data_outside_the_box_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data.gaussian_mixture, "REACH", 0.5)
    with pytest.raises(DataError, match="outside its box"):
        data.prepare(spec_of("gaussian_mixture"), tmp_path)
