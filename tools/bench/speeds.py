"""Numerics, in one process."""

import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from measuring import REPETITIONS, ROOT, Row, fastest

from hamflow import config


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
        for method in config.methods_of(parameters, "digits"):
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
