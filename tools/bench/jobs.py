"""What a job adds to its work."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from measuring import ROOT, Row, measured

from hamflow import config
from hamflow.files import write_text
from hamflow.pipeline.paths import Preset

JOB_SECONDS, CLOSING_SECONDS = 3.0, 1.0  # what is allowed
HAMFLOW = [sys.executable, "-m", "hamflow.cli"]
CHECKPOINT = "checkpoints/bench/checkerboard/edm/seed0"


def jobs(folder: Path) -> Iterator[Row]:
    """What a job takes whose work is next to nothing: one step, 64 samples, one evaluation; alone, and beside MLflow."""
    commands, checkpoint = small_jobs(folder), folder / CHECKPOINT
    yield measured("hamflow --version", [*HAMFLOW, "--version"], folder)
    yield measured("import torch", [sys.executable, "-c", "import torch"], folder)
    for name, command in commands.items():
        yield measured(f"hamflow {name}", command, folder, JOB_SECONDS, made=checkpoint if name == "train" else None)
    store = f"sqlite:///{folder}/mlflow.db"
    yield measured(
        "hamflow publish --init, a new SQLite store", [*HAMFLOW, "publish", "--init", "--uri", store], folder, times=1
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        for name, uri in (("SQLite", store), ("a silent server", f"http://127.0.0.1:{silent.getsockname()[1]}")):
            what, beside = f"hamflow train, MLflow on {name}", {"MLFLOW_TRACKING_URI": uri}
            yield measured(what, commands["train"], folder, JOB_SECONDS + CLOSING_SECONDS, made=checkpoint, environment=beside)


def small_jobs(folder: Path) -> dict[str, list[str]]:
    """The commands of a chain of jobs on 64 points, in order."""
    tiny = config.load(
        [ROOT / "params.yaml", ROOT / "workflow/presets/smoke.yaml"],
        [
            "preset=bench",
            "seeds=[0]",
            "run={datasets: [checkerboard], methods: [edm]}",
            "datasets.checkerboard.n_samples=64",
            "datasets.checkerboard.training={train_kimg: 0.256, batch: 256, microbatch: 256, report_kimg: 0.256}",
            "sampling.settings={multistep: [2], heun: null}",
            "metrics.hsd.sigmas=[]",
        ],
    )
    write_text(Preset("bench", folder).parameters, config.dump(tiny))
    run, data = "bench/checkerboard/edm/seed0", "bench/checkerboard"
    return {
        "prepare": [*HAMFLOW, "prepare", data],
        "train": [*HAMFLOW, "train", run],
        "sample": [*HAMFLOW, "sample", run],
        "evaluate, real data": [*HAMFLOW, "evaluate", data],
        "evaluate": [*HAMFLOW, "evaluate", run],
        "tabulate": [*HAMFLOW, "tabulate", "bench"],
        "plot nfe": [*HAMFLOW, "plot", "bench/nfe"],
    }
