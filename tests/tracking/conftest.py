"""A preset's folders made up for the tests, and an empty store."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from hamflow.files import save_tensors, write_json
from hamflow.tracking import JsonlLog, init_store

SPEC = {
    "dataset": "digits",
    "conditional": False,
    "flow": {"name": "oscillation", "alpha": "auto"},
    "batch": 128,
}


def make(root: Path, methods=("edm", "oscillation"), seeds=(0, 1), lines=5, budgets=(5, 35)) -> tuple[Path, Path]:
    """(results/toy, checkpoints/toy) of a data set "digits", with numbers drawn from a fixed generator."""
    rng = np.random.default_rng(0)
    results, checkpoints = root / "results" / "toy", root / "checkpoints" / "toy"
    for method in methods:
        for seed in seeds:
            folder = checkpoints / "digits" / method / f"seed{seed}"
            provenance = {"git_commit": "0" * 40, "packages": {"torch": torch.__version__}}
            metadata = {
                "spec": SPEC | {"method": method},
                "seed": seed,
                "kimg": 8.0,
                "provenance": provenance,
            }
            save_tensors(folder / "model.safetensors", {"weight": torch.ones(3)}, metadata)
            with JsonlLog(folder / "train.jsonl") as log:
                for line in range(1, lines + 1):
                    log.append({"kimg": 8.0 * line, "loss": rng.random(), "device": "cpu"})
            for budget in budgets:
                result = {
                    "sampler": "heun",
                    "nfe": budget,
                    "metrics": {"fd_enlite0": {"value": rng.random(), "n": 100}},
                }
                write_json(results / "metrics" / "digits" / method / f"seed{seed}" / f"heun-nfe{budget}.json", result)
    bound = {"sampler": "real", "nfe": 0, "metrics": {"fd_enlite0": {"value": 0.01, "n": 100}}}
    write_json(results / "metrics" / "digits" / "data" / "seed0" / "real-nfe0.json", bound)
    (results / "tables").mkdir()
    (results / "tables" / "table1.csv").write_text("preset\ntoy\n")
    return results, checkpoints


@pytest.fixture
def make_preset():
    return make


@pytest.fixture
def spec():
    """The training spec of a method."""
    return lambda method: SPEC | {"method": method}


@pytest.fixture(autouse=True, scope="session")
def no_environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
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
