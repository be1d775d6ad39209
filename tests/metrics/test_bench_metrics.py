"""The benchmark of the metrics judges by its limits, and refuses to compare what differs."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "tools/bench_metrics.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_metrics", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_metrics"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_metrics"]


def test_a_ratio_is_missed_below_its_least(bench):
    assert bench.Ratio("x", ours=1.0, others=2.9, least=3.0).missed
    assert not bench.Ratio("x", ours=1.0, others=3.0, least=3.0).missed


def test_both_distances_are_one_number(bench, monkeypatch):
    assert bench.distance(20).others > 0
    monkeypatch.setattr(bench, "frechet_distance", lambda *_: 1.0)
    with pytest.raises(SystemExit, match="differ"):
        bench.distance(20)


def test_both_routes_give_the_same_features(bench, cleanfid):
    """It ends with an error where they do not."""
    assert bench.feeding(40).ours > 0
