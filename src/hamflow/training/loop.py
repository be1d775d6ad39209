"""The training loop."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hamflow import data, models, runtime
from hamflow.draws import BatchDraws, DataOrder, seeded
from hamflow.errors import DivergenceError
from hamflow.files import save_tensors, write_json, write_text
from hamflow.flows import velocity_loss
from hamflow.flows.times import draw_times
from hamflow.pipeline.paths import CIRCUMSTANCES as RUN_FILE
from hamflow.pipeline.provenance import circumstances, versions
from hamflow.progress import Progress
from hamflow.tracking import JsonlLog
from hamflow.training.adam import Adam
from hamflow.training.ema import ExponentialMovingAverage
from hamflow.training.interruption import Interrupted, Termination
from hamflow.training.state import CHECKPOINT, LOG, StateFolder

SPEED = "images_per_second"  # the one entry of a report that differs between equal runs


def train(
    spec: dict[str, Any],
    data_folder: Path,
    seed: int,
    output: Path,
    device: str = "auto",
    stream: Any = None,
    keep: bool = False,
) -> Path:
    """Train one method on one data set; a run that was killed goes on where its last state was, to the same bits.

    Args:
        spec: `hamflow.config.training_spec`.
        data_folder: a prepared data set.
        seed: of the weights and of every draw.
        output: folder of the checkpoint; receives model.safetensors (weights: the moving average; metadata: spec, seed,
            data, the curve of the loss), train.jsonl and run.json (commit, host, seconds).
        device: "auto", "cpu", "cuda", ...
        stream: called with each record of train.jsonl (MLflow), or None.
        keep: keep links to what is published in the folder of the state; should it be deleted, this call publishes it again.
    Returns:
        The path of the checkpoint.
    Raises:
        DivergenceError: a loss or gradient that is not finite; the last state is kept.
        Interrupted: SIGTERM came (in the main thread); the state is saved.
        UserError: data, configuration or state that cannot be used.
    """
    run = _Run(spec, data.load(data_folder, verify=True), seed, Path(output), runtime.configure(device))
    if keep and run.state.put_back(run.published):
        print(f"{run.label}: was trained to the end before, and is published again", flush=True)
        return run.published[-1]
    with Termination() as termination:
        with JsonlLog(run.state.log) as log:
            log.restart(run.history)
            for record in run.records(termination):
                log.append(record)
                if stream is not None:
                    stream(record)
        return run.publish(keep)


class _Run:
    """The state of a training run, and one step of it."""

    def __init__(self, spec: dict[str, Any], dataset: Any, seed: int, output: Path, device: torch.device):
        self.spec, self.settings, self.dataset = spec, spec["training"], dataset
        self.seed, self.output, self.device = seed, output, device
        self.batch = self.settings["batch"]
        self.steps = math.ceil(1000 * self.settings["train_kimg"] / self.batch)
        self.order = DataOrder(seed, "velocity", count=dataset.count)
        self.model = models.build(spec, models.resolve(spec, dataset), seed)
        self.network = self.model.network.to(device)
        self.average = ExponentialMovingAverage(
            self.network, 1000 * self.settings["ema_halflife_kimg"], self.settings["ema_rampup"]
        )
        self.optimiser = Adam(self.network.parameters(), lr=self.settings["learning_rate"], betas=tuple(self.settings["betas"]))
        self.metadata = {
            "spec": spec,
            "resolved": self.model.resolved,
            "seed": seed,
            "kimg": self.steps * self.batch / 1000,
            "data_sha256": dataset.sha256,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "packages": versions(),
        }
        self.state = StateFolder(output, self.metadata)
        progress = self.state.load(self.network, self.average.network, self.optimiser)
        self.step: int = progress.get("step", 0)
        self.window: list[float] = progress.get("window", [])  # losses since the last report
        self.history: list[dict[str, Any]] = progress.get("history", [])  # the reports
        self.began, self.seconds_before = time.perf_counter(), progress.get("seconds", 0.0)

    @property
    def kimg(self) -> float:
        """Thousands of images seen."""
        return self.step * self.batch / 1000

    def records(self, termination: Termination) -> Iterator[dict[str, Any]]:
        """Train to the end, or to a termination; yields a record a report, saves the state as often as the settings say."""
        report_steps, state_steps = (self._steps_in(self.settings[f"{what}_kimg"]) for what in ("report", "state"))
        self._announce()
        progress = Progress(self.label, self.steps * self.batch, "img", self.step * self.batch)
        began, began_step = time.perf_counter(), self.step
        while self.step < self.steps:
            if termination.requested:
                self.save_state()
                progress.close()
                raise Interrupted(f"{self.label}: state saved at {self.kimg:g} kimg; run the same command again to go on")
            self.window.append(self.advance())
            progress.advance(self.batch)
            if self.step % report_steps == 0 or self.step == self.steps:
                rate = (self.step - began_step) * self.batch / (time.perf_counter() - began)
                record = self._record(rate)
                self.history.append(record)
                progress.report(kimg=f"{self.kimg:.1f}", loss=f"{record['loss']:.4f}", **self._pace(rate))
                yield record
            if self.step % state_steps == 0 and self.step < self.steps:
                self.save_state()
        progress.close()

    def advance(self) -> float:
        """One optimiser step; returns the mean weighted loss."""
        draws = BatchDraws(self.seed, "training", "velocity", self.step, batch=self.batch)
        times = draw_times(self.spec["times"], self.model.flow, draws.uniform("time"))
        self._set_learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._accumulate(draws, times)
        limit = self.settings["gradient_clip"] or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._divergence(loss, norm, times)
        self.optimiser.step()
        self.step += 1
        self.average.update(self.network, self.step * self.batch, self.batch)
        return loss

    def save_state(self) -> None:
        """Write what a later start needs to go on from here to the same bits."""
        progress = {"step": self.step, "window": self.window, "history": self.history, "seconds": self.seconds}
        self.state.save(self.network, self.average.network, self.optimiser, progress)

    @property
    def published(self) -> list[Path]:
        """The files that a training leaves, in the order in which they are written."""
        return [self.output / name for name in (LOG, RUN_FILE, CHECKPOINT)]

    def publish(self, keep: bool = False) -> Path:
        """Copy the log, write the checkpoint, drop the state: in this order, so that a kill between them loses nothing."""
        log, run, path = self.published
        write_text(log, self.state.log.read_text())
        write_json(run, circumstances(wall_seconds=self.seconds))
        curve = [{key: value for key, value in record.items() if key != SPEED} for record in self.history]
        save_tensors(path, self.average.network.state_dict(), self.metadata | {"history": curve})
        if keep:
            self.state.keep(self.published)
        else:
            self.state.remove()
        return path

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, without what was lost to kills."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def label(self) -> str:
        """How the progress names the run."""
        return f"train {self.spec['dataset']}/{self.spec['method']}/seed{self.seed}"

    def _accumulate(self, draws: BatchDraws, times: Tensor) -> float:
        """Gradients of the mean loss over the batch, a microbatch at a time."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        size = self.settings["microbatch"]
        noise = self.model.flow.noise(draws, self.dataset.shape)
        rows = self.order.rows(self.step * self.batch, self.batch)
        with seeded(self.device, self.seed, "dropout", self.step):
            for start in range(0, self.batch, size):
                part = slice(start, start + size)
                x0, labels = self.dataset.batch(rows[part])
                loss = self._loss(x0, labels, noise[part], times[part]).sum() / self.batch
                loss.backward()
                total += loss.detach()
        return float(total)

    def _loss(self, x0: Tensor, labels: Tensor | None, noise: Tensor, t: Tensor) -> Tensor:
        x0, noise, t = x0.to(self.device), noise.to(self.device), t.to(self.device, torch.float32)
        labels = labels.to(self.device) if self.model.classes and labels is not None else None
        v0 = self.model.flow.couple(x0, noise)

        def predict(x_t: Tensor, t: float | Tensor) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext():
                return self.model.velocity(x_t, t, labels).float()  # the loss itself stays in float32

        return self.model.parameterisation.weight(t) * velocity_loss(predict, self.model.flow, x0, v0, t)

    def _set_learning_rate(self) -> None:
        """Linear ramp over warmup_kimg, then a half cosine to zero (or constant)."""
        warmup = self.settings["warmup_kimg"]
        factor = min(1.0, (self.kimg + self.batch / 1000) / warmup) if warmup else 1.0
        if self.settings["decay"] == "cosine":
            past = max(0.0, self.kimg - warmup) / max(1e-9, self.metadata["kimg"] - warmup)
            factor *= 0.5 * (1 + math.cos(math.pi * min(1.0, past)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings["learning_rate"] * factor

    def _record(self, rate: float) -> dict[str, Any]:
        loss, self.window = sum(self.window) / len(self.window), []
        lr = self.optimiser.param_groups[0]["lr"]
        return {"kimg": self.kimg, "loss": loss, "learning_rate": lr, SPEED: round(rate, 1)}

    def _pace(self, rate: float) -> dict[str, str]:
        left = (self.steps - self.step) * self.batch / rate
        return {"images/s": f"{rate:.0f}", "ETA": time.strftime("%H:%M:%S", time.gmtime(left))}

    def _announce(self) -> None:
        print(
            f"{self.label}: {self.metadata['parameters']:,} parameters, {self.metadata['kimg']:g} kimg, "
            + (f"resumed at {self.kimg:g} kimg" if self.step else "from the start"),
            flush=True,
        )

    def _divergence(self, loss: float, norm: float, times: Tensor) -> DivergenceError:
        saved = self.state.folder / "state.safetensors"
        return DivergenceError(
            f"training of '{self.spec['method']}' on '{self.spec['dataset']}' met loss {loss:g} and gradient norm {norm:g} "
            f"at step {self.step} ({self.kimg:g} kimg), times {float(times.min()):.4g} to {float(times.max()):.4g}",
            why="weights updated with it would be lost",
            fix=f"lower training.learning_rate or training.gradient_clip; last good state: "
            f"{saved if saved.exists() else 'none yet, see training.state_kimg'}",
        )

    def _steps_in(self, kimg: float) -> int:
        return max(1, round(1000 * kimg / self.batch))
