"""The verb `evaluate`: what it writes, and what it refuses."""

import json

import numpy as np
import pytest

from hamflow import data
from hamflow.data.sources import _SOURCES
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import read_json, sha256_of, write_json
from hamflow.metrics import suite
from hamflow.verbs.evaluate import build_reference, evaluate

N = 40


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """A source of 40 of the digits, and no trace of it afterwards."""
    data.names()
    monkeypatch.setattr(_SOURCES, "_entries", dict(_SOURCES._entries))
    digits = data.build("digits")

    @data.sources.register("few_digits")
    def few() -> data.Source:
        images, labels = digits.read()
        labels[:10] = range(10)
        return data.Source("image", lambda: (images[:N], labels[:N]), digits.box, "-", "a test", digits.class_names)


def specification(dataset: str, **changes) -> dict:
    points = dataset != "few_digits"
    spec = {
        "preset": "test",
        "dataset": dataset,
        "dataset_label": dataset.title(),
        "conditional": False,
        "method": "data",
        "label": "real data (bound)",
        "features": "points" if points else "efficientnet_lite0",
        "n_samples": N,
        "batch": 8,
    }
    return spec | changes


class Place:
    """The folders of one data set's evaluation."""

    def __init__(self, root, dataset: str, **options):
        self.dataset, self.data, self.reference = dataset, root / dataset, root / "reference.npz"
        self.samples, self.output = root / "samples", root / "metrics"
        options = options if dataset == "few_digits" else {"count": 100, **options}
        data.prepare({"name": dataset, "source": dataset, "options": options}, self.data)

    def build(self, **changes) -> dict:
        build_reference(specification(self.dataset, **changes), self.data, self.reference, self.output)
        return read_json(self.output / "real-nfe0.json")

    def draw(self, array: np.ndarray, name: str = "heun-nfe5", **changes) -> None:
        self.samples.mkdir(exist_ok=True)
        np.save(self.samples / f"{name}.npy", array)
        sidecar = {
            "sampler": "heun",
            "nfe": 5,
            "seed": 2,
            "data_sha256": data.load(self.data).sha256,
            "checkpoint_sha256": "c0ffee",
        }
        write_json(self.samples / f"{name}.json", sidecar | changes)

    def fake(self) -> np.ndarray:
        """Samples as good as the data."""
        dataset = data.load(self.data)
        return np.array(dataset.rows[:N])

    def evaluate(self, **changes) -> dict:
        spec = specification(self.dataset, method="oscillation", label="Oscillation HGF", **changes)
        evaluate(spec, self.data, self.reference, self.samples, self.output)
        return read_json(self.output / "heun-nfe5.json")


@pytest.fixture(params=["few_digits", "checkerboard", "gaussian_mixture", "rings"])
def place(request, tmp_path):
    return Place(tmp_path, request.param)


@pytest.fixture
def board(tmp_path):
    place = Place(tmp_path, "checkerboard")
    place.build()
    place.draw(place.fake())
    return place


METRICS = {
    "few_digits": {"fd_enlite0", "fd_enlite0_relative", "kd_enlite0"},
    "checkerboard": {"w2", "mmd", "nll", "support"},
    "gaussian_mixture": {"w2", "mmd", "nll"},
    "rings": {"w2", "mmd", "nll"},
}


def test_metrics_files_keep_the_contract(place):
    bound = place.build()
    place.draw(place.fake())
    result = place.evaluate()
    assert (bound["method"], bound["sampler"], bound["nfe"], bound["seed"]) == ("data", "real", 0, 0)
    assert (result["method"], result["sampler"], result["nfe"], result["seed"]) == (
        "oscillation",
        "heun",
        5,
        2,
    )
    for row, n in ((bound, N // 2 if place.dataset == "few_digits" else N), (result, N)):
        assert set(row["metrics"]) == METRICS[place.dataset]
        assert {m["n"] for m in row["metrics"].values()} == {n}
        assert {m["features"] for m in row["metrics"].values()} == {specification(place.dataset)["features"]}
        assert row["provenance"]["data_sha256"] == sha256_of(place.data / "dataset.json")
        assert {"preset", "dataset", "dataset_label", "conditional", "label"} <= set(row)
    assert result["provenance"]["checkpoint_sha256"] == "c0ffee"


def test_equal_work_gives_equal_bytes_and_the_circumstances_stand_beside(board):
    write_json(board.samples / "run.json", {"training": {"wall_seconds": 7}, "sampling": {"wall_seconds": {}}})
    board.evaluate()
    first = (board.output / "heun-nfe5.json").read_bytes()
    board.evaluate()
    assert (board.output / "heun-nfe5.json").read_bytes() == first
    beside = read_json(board.output / "run.json")
    assert beside.keys() == {"evaluation", "sampling", "training"}
    assert beside["training"] == {"wall_seconds": 7}
    assert beside["evaluation"].keys() == {"git_commit", "git_dirty", "host", "wall_seconds"}
    assert beside["evaluation"]["wall_seconds"].keys() == {"heun-nfe5"}
    assert not beside["evaluation"].keys() & read_json(board.output / "heun-nfe5.json")["provenance"].keys()


def test_the_metrics_of_settings_that_are_gone_go_too(board):
    board.draw(board.fake(), "heun-nfe9", nfe=9)
    board.evaluate()
    for path in board.samples.glob("heun-nfe9.*"):
        path.unlink()
    board.evaluate()
    assert {path.name for path in board.output.iterdir()} == {"heun-nfe5.json", "real-nfe0.json", "run.json"}


def test_the_reference_is_the_same_whenever_it_is_built(place):
    place.build()
    first = place.reference.read_bytes()
    place.build()
    assert place.reference.read_bytes() == first


def test_the_data_themselves_are_at_no_distance(tmp_path):
    place = Place(tmp_path, "few_digits")
    place.build()
    place.draw(place.fake())
    metrics = place.evaluate()["metrics"]
    assert metrics["fd_enlite0_relative"]["value"] == pytest.approx(0, abs=1e-6)
    assert metrics["kd_enlite0"]["value"] < 0  # its diagonal is left out on one side only


def test_the_relative_distance_is_in_units_of_the_trace(tmp_path):
    place = Place(tmp_path, "few_digits")
    place.build()
    place.draw(255 - place.fake())
    metrics = place.evaluate()["metrics"]
    with np.load(place.reference) as archive:
        trace = float(archive["trace"])
        assert trace == pytest.approx(archive["rows"].astype(np.float64).var(0, ddof=1).sum())
    assert metrics["fd_enlite0_relative"]["value"] == pytest.approx(metrics["fd_enlite0"]["value"] / trace)


def test_fewer_samples_than_features_are_told(tmp_path, capsys):
    place = Place(tmp_path, "few_digits")
    place.build()
    place.draw(place.fake())
    place.evaluate()
    assert f"{N} samples have a singular covariance in 320 features" in capsys.readouterr().out


def test_the_bound_compares_disjoint_halves(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(suite, "measure", lambda comparison: seen.append(comparison) or {})
    Place(tmp_path, "few_digits").build()
    (comparison,) = seen
    sides = [{row.tobytes() for row in rows} for rows in (comparison.samples, comparison.reference.rows)]
    assert [len(side) for side in sides] == [N // 2, N // 2]
    assert not sides[0] & sides[1]


def test_held_out_images_are_the_bound_where_there_are_any(tmp_path):
    place = Place(tmp_path, "few_digits", holdout=0.25)
    assert place.build()["metrics"]["fd_enlite0"]["n"] == N // 4


def test_held_out_images_are_the_statistics_where_they_are_asked_for(tmp_path):
    """Then the held-out images themselves have the distance 0, training images are the bound; another reference is refused."""
    place = Place(tmp_path, "few_digits", holdout=0.25)
    held_out = np.array(data.load(place.data).test().rows)
    bound = place.build(reference="held_out")
    assert bound["metrics"]["fd_enlite0"]["n"] == len(data.load(place.data).rows)
    place.draw(held_out)
    found = place.evaluate(reference="held_out", n_samples=len(held_out))["metrics"]
    assert found["fd_enlite0_relative"]["value"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError, match="reference held_out, but None"):
        place.evaluate(n_samples=len(held_out))
    with pytest.raises(ConfigurationError, match="nothing of these data was held out"):
        Place(tmp_path / "other", "few_digits").build(reference="held_out")


def test_every_setting_has_its_file(board):
    board.draw(board.fake(), "multistep-nfe9", sampler="multistep", nfe=9)
    board.evaluate()
    assert {path.name for path in board.output.iterdir()} == {
        "heun-nfe5.json",
        "multistep-nfe9.json",
        "real-nfe0.json",
        "run.json",
    }


def test_points_off_the_support_are_counted(board):
    points = board.fake()
    points[: N // 4] += [1, 0]  # to the next cell, of the other colour, or out of the box
    board.draw(points)
    metrics = board.evaluate()["metrics"]
    assert metrics["support"]["value"] == 0.75
    assert metrics["nll"]["finite_fraction"] == 0.75


def test_a_new_metric_is_one_function(board, monkeypatch):
    monkeypatch.setattr(suite, "_METRICS", dict(suite._METRICS))

    @suite.register("point", "spread")
    def spread(comparison):
        return {"value": float(np.std(comparison.samples)), "n": 7}

    row = board.evaluate()["metrics"]["spread"]
    assert row == {"value": pytest.approx(board.fake().std()), "n": 7, "features": "points"}


def damage(place: Place, how: str) -> None:
    path = place.samples / "heun-nfe5.npy"
    good = place.fake()
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "no sidecar":
        path.with_suffix(".json").unlink()
    elif how == "torn sidecar":
        path.with_suffix(".json").write_text('{"sampler": "he')
    elif how == "bare sidecar":
        write_json(path.with_suffix(".json"), {"sampler": "heun"})
    elif how == "other data":
        place.draw(good, data_sha256="0" * 64)
    elif how == "no samples":
        path.unlink()
    else:
        place.draw(
            {
                "fewer": good[:-1],
                "other shape": good[:, :1],
                "other type": good.astype(np.float64),
                "not finite": np.where(good == good.max(), np.float32(np.nan), good),
            }[how]
        )


SAMPLE_DAMAGE = ["truncated", "no sidecar", "torn sidecar", "bare sidecar", "other data", "no samples"]
SAMPLE_DAMAGE += ["fewer", "other shape", "other type", "not finite"]


@pytest.mark.parametrize("how", SAMPLE_DAMAGE)
def test_damaged_samples_are_a_paragraph_and_leave_nothing(board, how):
    damage(board, how)
    with pytest.raises(DataError, match="sampl"):
        board.evaluate()
    assert {path.name for path in board.output.iterdir()} == {"real-nfe0.json", "run.json"}


def test_a_reference_of_other_data_is_refused(board):
    sha256 = data.load(board.data).sha256
    data.prepare({"name": "checkerboard", "source": "checkerboard", "options": {"seed": 1}}, board.data)
    with pytest.raises(DataError, match=sha256):
        board.evaluate()


def test_a_reference_of_another_size_is_refused(board):
    with pytest.raises(DataError, match="equal n"):
        board.evaluate(n_samples=N - 1)


def test_features_must_fit_the_data(board):
    with pytest.raises(ConfigurationError, match="do not fit"):
        board.build(features="efficientnet_lite0")


def test_altered_data_make_no_reference(board):
    array = board.data / "points.npy"
    content = bytearray(array.read_bytes())
    content[-1] ^= 1
    array.write_bytes(content)
    with pytest.raises(DataError, match="sha256"):
        board.build()


def test_the_reference_tells_where_it_comes_from(board):
    with np.load(board.reference) as archive:
        facts = json.loads(str(archive["facts"]))
    assert facts["dataset"] == "checkerboard"
    assert {"features", "data_sha256", "params_sha256", "provenance"} <= set(facts)
