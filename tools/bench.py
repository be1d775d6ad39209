"""Measure what hamflow costs: the workflow's own time, what a job adds to its work, and a few speeds. `make bench`.

Seconds are of the wall clock, the best of the repetitions; beside them the seconds of CPU, which other work on the machine
hardly changes. Speeds are compared within one run. Nothing is written but in a temporary folder (and to --output).
"""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml

from hamflow import config
from hamflow.files import write_text
from hamflow.pipeline import provenance
from hamflow.pipeline.paths import Preset

ROOT = Path(__file__).resolve().parents[1]
TREE = ("Snakefile", "params.yaml", "profiles", "workflow", "src")
METHODS, SEEDS, BUDGETS = 10, 3, (5, 9, 17, 35, 71)  # with two samplers and the four default data sets: the paper's size
REPETITIONS = 2
DAG_SECONDS, NOTHING_SECONDS, JOB_SECONDS, CLOSING_SECONDS = 10.0, 5.0, 3.0, 1.0  # what is allowed
HAMFLOW = [sys.executable, "-m", "hamflow.cli"]
CHECKPOINT = "checkpoints/bench/checkerboard/edm/seed0"

# The real workflow, whose jobs do nothing but make their outputs, with their stamps.
IDLE = """
include: "Snakefile"


def make_outputs(_input, output, _params, wildcards, _threads, _resources, _log, rule, *_rest):
    job = job_of("reference" if rule.startswith("reference_") else rule, wildcards)
    with made.making(job, JOBS.memo):
        shell("touch {output:q}")


for each in workflow.rules:
    if each.shellcmd:
        each.run_func = make_outputs
"""


@dataclass
class Row:
    """One measurement; `limit` is the largest value allowed, if there is one."""

    what: str
    value: float
    unit: str
    cpu_seconds: float | None = None
    limit: float | None = None
    busy: bool = field(default_factory=lambda: os.getloadavg()[0] > (os.cpu_count() or 1))

    @property
    def missed(self) -> bool:
        """Whether it is over its limit; on a machine with other work to do, by the seconds of CPU where they are known."""
        judged = self.cpu_seconds if self.busy and self.cpu_seconds is not None else self.value
        return self.limit is not None and judged > self.limit

    def __str__(self) -> str:
        cpu = "" if self.cpu_seconds is None else f"{self.cpu_seconds:.1f} s CPU"
        limit = "" if self.limit is None else f"{'MISSED' if self.missed else 'within'} {self.limit:g} {self.unit}"
        return f"{self.what:58} {self.value:12,.3g} {self.unit:12} {cpu:12} {limit}".rstrip()


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a part; again for others (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the measurements as JSON, too")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hamflow-bench-") as folder:
        for name in options.only or SECTIONS:
            print(f"--- {name}", flush=True)
            for row in SECTIONS[name](Path(folder)):
                print(row, flush=True)
                rows.append(row)
    if options.output:
        options.output.write_text(json.dumps(described(rows), indent=1) + "\n")
    missed = [row.what for row in rows if row.missed]
    if any(row.busy for row in rows):
        print("The machine had other work to do, so that limits were judged by the seconds of CPU.")
    print(f"missed: {', '.join(missed)}" if missed else "all limits are kept")
    return int(options.check and bool(missed))


def described(rows: list[Row]) -> dict[str, Any]:
    """The measurements with the machine and the code that they are of."""
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    return {"provenance": provenance.circumstances(**machine) | provenance.origin(), "rows": [asdict(row) for row in rows]}


# --- the workflow ---------------------------------------------------------------------------------------------------


def workflow(folder: Path) -> Iterator[Row]:
    """Snakemake's own time, at the size of the paper's experiments and of the default preset."""
    tree = folder / "tree"
    tree.mkdir()
    for name in TREE:
        (tree / name).symlink_to(ROOT / name)
    (tree / "idle.smk").write_text(IDLE)
    (tree / "default.yaml").write_text(config.dump({"tracking": {"uri": ""}}))
    (tree / "paper.yaml").write_text(config.dump(paper_size()))

    def snakemake(overlay: str, *words: str) -> tuple[str, float, float]:
        command = ["snakemake", "all", "--snakefile", "idle.smk", "--configfile", overlay, "--cores", "1", *words]
        return timed(command, tree)

    for overlay, name, limit in (("default.yaml", "default preset", None), ("paper.yaml", "paper's size", DAG_SECONDS)):
        output, *dry = best(lambda o=overlay: snakemake(o, "--dry-run"))  # type: ignore[misc]
        jobs = int(next(line.split()[1] for line in output.splitlines()[::-1] if line.startswith("total")))
        yield Row(f"dry run, {name}, {jobs} jobs", dry[0], "s", dry[1], limit)
        _, *run = snakemake(overlay)
        yield Row(f"Snakemake's time a job, {name}", (run[0] - dry[0]) / jobs, "s", (run[1] - dry[1]) / jobs, JOB_SECONDS)
        output, *nothing = best(lambda o=overlay: snakemake(o))  # type: ignore[misc]
        assert "Nothing to be done" in output, output
        yield Row(f"run with nothing to do, {name}", nothing[0], "s", nothing[1], NOTHING_SECONDS)


def paper_size() -> dict[str, Any]:
    """An overlay of ten methods, which take turns with the default ones, on the default data sets."""
    catalogue = list(yaml.safe_load((ROOT / "params.yaml").read_text())["methods"].values())
    methods = {f"method{k}": catalogue[k % len(catalogue)] | {"label": f"Method {k}"} for k in range(METHODS)}
    return {
        "preset": "bench",
        "seeds": list(range(SEEDS)),
        "run": {"methods": list(methods)},
        "methods": methods,
        "sampling": {"settings": {"heun": list(BUDGETS), "multistep": list(BUDGETS)}},
        "tracking": {"uri": ""},
    }


# --- jobs -----------------------------------------------------------------------------------------------------------


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


# --- speeds ---------------------------------------------------------------------------------------------------------


def speeds(folder: Path) -> Iterator[Row]:
    """Numerics, in one process: an integrator, the Frechet distance, a U-Net, and a training step of every method."""
    from hamflow import data, runtime

    device = runtime.configure()
    yield from dynamics_speed(device)
    yield from frechet_speed()
    parameters = config.load([ROOT / "params.yaml"])
    data.prepare(config.dataset_spec(parameters, "digits"), folder / "digits")
    yield from network_speed(parameters, data.load(folder / "digits"), device)
    yield from training_speed(parameters, folder / "digits")


def dynamics_speed(device: Any) -> Iterator[Row]:
    import torch

    from hamflow.dynamics import Harmonic, simulate

    n, steps = 10_000, 200
    x, v = torch.randn(2, n, 2, device=device).unbind()
    seconds = fastest(lambda: simulate(Harmonic(1.0), x, v, 1.0, steps), device)
    yield Row(f"leapfrog, {n:,} points of 2 dimensions", steps / seconds, "steps/s")


def frechet_speed(d: int = 2048) -> Iterator[Row]:
    """The distance of two Gaussians as FID has them, beside the matrix root by which it is usually computed."""
    import numpy as np
    import scipy.linalg

    from hamflow.metrics import frechet_distance

    rng = np.random.default_rng(0)
    roots = rng.standard_normal((2, d, d)) * np.exp(-np.arange(d) / 300)  # a spectrum that falls, as that of features
    (cov_a, cov_b), mean = roots @ roots.transpose(0, 2, 1), np.zeros(d)
    began = time.process_time()
    ours = frechet_distance(mean, cov_a, mean, cov_b)
    between = time.process_time()
    theirs = np.trace(cov_a + cov_b) - 2 * np.trace(scipy.linalg.sqrtm(cov_a @ cov_b)).real
    root, distance = time.process_time() - between, between - began
    assert abs(ours / theirs - 1) < 1e-4, (ours, theirs)
    yield Row(f"Frechet distance, d = {d}", distance, "s")
    yield Row("the same by scipy's sqrtm", distance / root, "times", limit=1 / 3)


def network_speed(parameters: dict[str, Any], digits: Any, device: Any) -> Iterator[Row]:
    import torch

    from hamflow.methods.base import METHODS, Facts

    spec = config.training_spec(parameters, "digits", "flow_matching")
    field = METHODS.build(spec["kind"], **spec["options"]).objective(Facts.of(spec, digits), {}, 0).field.to(device)
    batch = spec["training"]["batch"]
    x, t = digits.batch(range(batch))[0].to(device), torch.full((batch,), 0.5, device=device)

    def forward() -> None:
        with torch.no_grad():
            field(x, t)

    def both() -> None:
        field(x, t).square().mean().backward()

    for name, work in (("forward", forward), ("forward and backward", both)):
        yield Row(f"U-Net of the quickstart, {name}, batch {batch}", batch / fastest(work, device), "images/s")


def training_speed(parameters: dict[str, Any], folder: Path) -> Iterator[Row]:
    """Training steps of each method on digits, in turns, so that other work on the machine slows all alike."""
    from hamflow.verbs._training import train

    batch, steps = parameters["training"]["batch"], 8
    lengths = {"train_kimg": 3 * steps * batch / 1000, "report_kimg": steps * batch / 1000, "warmup_kimg": 1}
    rates: dict[str, float] = {}
    for turn in range(REPETITIONS):
        for method in parameters["run"]["methods"]:
            spec = config.training_spec(parameters, "digits", method)
            spec["training"] |= lengths
            reports: list[dict[str, Any]] = []
            with redirect_stdout(StringIO()):
                train(spec, folder, 0, folder.parent / f"speed{turn}" / method, stream=reports.append)
            rates[method] = max([rates.get(method, 0.0)] + [report["images_per_second"] for report in reports])
    for method, rate in rates.items():
        yield Row(f"training, digits, {method}", rate, "images/s")
    for method in rates.keys() - {"flow_matching"}:
        yield Row(f"a step of {method} by one of flow_matching", rates["flow_matching"] / rates[method], "times")


def fastest(work: Callable[[], Any], device: Any) -> float:
    """Seconds of one call: the best of several, after one that is not counted."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(7))


# --- measuring ------------------------------------------------------------------------------------------------------


def timed(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> tuple[str, float, float]:
    """Run a command; returns (its output, wall seconds, CPU seconds of it and of what it started)."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=inherited | path | {"PYTHONPATH": str(ROOT / "src")} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}")
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(measure: Callable[[], tuple[str, float, float]], times: int = REPETITIONS) -> tuple[str, float, float]:
    """The repetition with the shortest wall time."""
    return min((measure() for _ in range(times)), key=lambda result: result[1])


def measured(
    what: str,
    command: list[str],
    folder: Path,
    limit: float | None = None,
    times: int = REPETITIONS,
    made: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Row:
    """The best of several runs of a command; `made` is removed before each, where a second run would find it and do nothing."""

    def once() -> tuple[str, float, float]:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        return timed(command, folder, environment)

    _, wall, cpu = best(once, times)
    return Row(what, wall, "s", cpu, limit)


SECTIONS: dict[str, Callable[[Path], Iterator[Row]]] = {"workflow": workflow, "jobs": jobs, "speeds": speeds}

if __name__ == "__main__":
    sys.exit(main())
