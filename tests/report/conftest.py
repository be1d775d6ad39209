"""Metrics of a preset made up for the tests."""

from pathlib import Path

import numpy as np
import pytest

from hamflow.files import write_json
from hamflow.pipeline.records import read

LABELS = {"edm": "EDM", "oscillation": "Oscillation HGF", "data": "real data (bound)"}
SETTINGS = (("heun", 9), ("heun", 35), ("multistep", 35))


def result(dataset="digits", method="edm", seed=0, sampler="heun", nfe=35, value=1.0, n=1797, **changes) -> dict:
    """One metrics JSON."""
    metrics = {"fd_enlite0": {"value": value, "n": n, "features": "efficientnet_lite0"}}
    if dataset == "rings":
        metrics = {name: {"value": value, "n": n, "features": "points"} for name in ("w2", "nll")}
    content = {
        "preset": "toy",
        "dataset": dataset,
        "dataset_label": dataset.capitalize(),
        "conditional": False,
        "method": method,
        "label": LABELS.get(method, method),
        "sampler": sampler,
        "nfe": nfe,
        "seed": seed,
        "metrics": metrics,
        "provenance": {},
    }
    return content | changes


def put(folder: Path, content: dict, stem: str = "") -> Path:
    """Write a metrics JSON where its content says."""
    place = folder / content["dataset"] / content["method"] / f"seed{content['seed']}"
    path = place / f"{stem or content['sampler'] + '-nfe' + str(content['nfe'])}.json"
    write_json(path, content)
    return path


@pytest.fixture
def make_result():
    return result


@pytest.fixture
def write_result():
    return put


@pytest.fixture
def metrics(tmp_path):
    """Two data sets, two methods, three seeds, three settings, and the bounds."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "results" / "toy" / "metrics"
    for dataset in ("digits", "rings"):
        put(folder, result(dataset, "data", sampler="real", nfe=0, value=0.1, n=898))
        for method in ("edm", "oscillation"):
            for seed in (0, 1, 2):
                for sampler, nfe in SETTINGS:
                    put(
                        folder,
                        result(dataset, method, seed, sampler, nfe, value=float(1 + rng.random()), n=1797),
                    )
    return folder


@pytest.fixture
def records(tmp_path, make_result, write_result):
    """Of {(method, sampler, nfe): distance}, two seeds each, whose resamples share what sampling adds."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(200)

    def records(values, deviation=0.01, draws=200):
        found = []
        for (method, sampler, nfe), value in values.items():
            for seed in (0, 1):
                content = make_result("digits", method, seed, sampler, nfe, value=value)
                own = deviation * rng.standard_normal(draws)
                content["metrics"]["fd_enlite0"]["resampled"] = (value + 5 * shared[:draws] + own).tolist()
                found.append(read(write_result(tmp_path / "metrics", content)))
        return found

    return records
