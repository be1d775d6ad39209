"""A preset's folders made up for the tests, and an empty store."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from hamflow.files import save_tensors, sha256_of, write_json
from hamflow.pipeline.paths import CIRCUMSTANCES, Preset, Run, setting_of
from hamflow.tracking import JsonlLog, init_store

SPEC = {
    "dataset": "digits",
    "conditional": False,
    "flow": {"name": "oscillation", "alpha": "auto"},
    "batch": 128,
}
AROUND = {"git_commit": "0" * 40, "git_dirty": False, "wall_seconds": 12.5}
MANIFEST = {
    "name": "digits",
    "kind": "image",
    "count": 100,
    "classes": 10,
    "split": {"train": 100, "test": 0},
    "shape": [1, 8, 8],
    "sigma_data": 0.75,
    "licence": "BSD-3-Clause",
    "origin": "made up",
}


def make(root: Path, methods=("edm", "oscillation"), seeds=(0, 1), lines=5, budgets=(5, 35)) -> Preset:
    """The folders after a run on the data set "digits", with numbers drawn from a fixed generator."""
    rng = np.random.default_rng(0)
    preset = Preset("toy", root)
    manifest = preset.manifest("digits")
    write_json(manifest, MANIFEST)
    origin = {"data_sha256": sha256_of(manifest)}
    for method in methods:
        for seed in seeds:
            train(preset.checkpoints / "digits" / method / f"seed{seed}", method, seed, lines, origin, rng)
            for budget in budgets:
                write_metrics(preset.run("digits", method, seed), "heun", budget, rng.random(), origin)
    write_metrics(preset.bound("digits"), "real", 0, 0.01, origin)
    for name in ("tables/table1.csv", "figures/nfe.png", "studies/mixture.json"):
        path = preset.results / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{name}\n")
    return preset


def train(folder: Path, method: str, seed: int, lines: int, origin: dict, rng: np.random.Generator) -> None:
    """What a training leaves behind."""
    reports = [{"kimg": 8.0 * line, "loss": rng.random(), "learning_rate": 0.1 / line} for line in range(1, lines + 1)]
    metadata = {"spec": SPEC | {"method": method}, "seed": seed, "kimg": 8.0 * lines, "history": reports, **origin}
    save_tensors(folder / "model.safetensors", {"weight": torch.full((3,), float(seed))}, metadata)
    write_json(folder / "run.json", AROUND)
    with JsonlLog(folder / "train.jsonl") as log:
        for report in reports:
            log.append(report | {"images_per_second": 1000 * rng.random(), "device": "cpu"})


def write_metrics(run: Run, sampler: str, nfe: int, value: float, origin: dict) -> None:
    """A metrics JSON, and beside it what differs between equal runs."""
    about = {"preset": "toy", "dataset": "digits", "dataset_label": "Digits", "conditional": False, "method": run.method}
    about |= {"label": run.method, "sampler": sampler, "nfe": nfe, "seed": run.seed, "provenance": origin}
    metrics = {"fd_enlite0": {"value": value, "n": 100, "features": "efficientnet_lite0"}}
    write_json(run.metrics / f"{setting_of(sampler, nfe)}.json", about | {"metrics": metrics})
    write_json(run.metrics / CIRCUMSTANCES, {"evaluation": AROUND})


@pytest.fixture(scope="session")
def make_preset():
    return make


@pytest.fixture(scope="session")
def spec():
    """The training spec of a method."""
    return lambda method: SPEC | {"method": method}


@pytest.fixture(autouse=True, scope="session")
def no_environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """An initialised SQLite store; creating one takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    init_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(empty_store, tmp_path) -> Path:
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    return path


@pytest.fixture
def rows(store):
    """Every row of a table of the store, sorted, timestamps and all."""

    def read(table: str) -> list[tuple]:
        with sqlite3.connect(store) as connection:
            return sorted(connection.execute(f"SELECT * FROM {table}"), key=str)

    return read
