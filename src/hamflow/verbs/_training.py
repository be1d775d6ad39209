"""The work of the verb `train`: a fit with its folder, its reports and what it publishes."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hamflow import data, runtime
from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.files import fingerprint, save_tensors, sha256_of, write_json, write_text
from hamflow.methods.base import METHODS, Facts, Generator, check_belongs, load
from hamflow.pipeline.jobs import unused
from hamflow.pipeline.paths import CIRCUMSTANCES, snapshot_of
from hamflow.pipeline.provenance import circumstances, versions
from hamflow.pipeline.sources import names_in, of_this_package
from hamflow.progress import Progress
from hamflow.registry import convert
from hamflow.tracking import JsonlLog
from hamflow.training import ranks, utilisation
from hamflow.training.fit import fit
from hamflow.training.folder import CHECKPOINT, LOG, STATE, StateFolder
from hamflow.training.interruption import Interrupted, Termination
from hamflow.training.plan import MEASURED, Training
from hamflow.training.state import State


@ranks.joined()
def train(
    spec: dict[str, Any],
    data_folder: Path,
    seed: int,
    output: Path,
    device: str = "auto",
    stream: Callable[[dict[str, Any]], None] | None = None,
    keep: bool = False,
    parents: Mapping[str, Path] | None = None,
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
        keep: also hard-link the published files into state/, so that a later call can restore them if Snakemake deletes the
            originals.
        parents: the checkpoint of each role in spec["parents"].
    Returns:
        The path of the checkpoint.
    Raises:
        DivergenceError: a loss or gradient that is not finite; the last state is kept.
        Interrupted: SIGTERM came (in the main thread); the state is saved.
        UserError: data, configuration or state that cannot be used.
    """
    job = _Job(spec, data.load(data_folder, verify=True), seed, Path(output), runtime.configure(device), parents or {})
    if keep and job.folder.put_back(job.published):
        ranks.any_of(False)
        print(f"{job.label}: was trained to the end before, and is published again", flush=True)
        return job.published[-1]
    with Termination() as termination:
        ranks.any_of(True)
        with JsonlLog(job.folder.log) as log:
            log.restart(job.state.history)
            for record in job.records(termination):
                log.append(record)
                if stream is not None:
                    stream(record)
        return job.publish(keep)


@ranks.joined()
def follow(
    spec: dict[str, Any], data_folder: Path, seed: int, output: Path, device: str, parents: Mapping[str, Path] | None = None
) -> None:
    """Do the part of one of several processes in `train`, which the first of them has called; this one writes no file."""
    with Termination() as termination:
        if ranks.any_of(False):  # the first trains
            dataset, chosen = data.load(data_folder, verify=True), runtime.configure(device)
            for _ in _Job(spec, dataset, seed, Path(output), chosen, parents or {}).records(termination):
                pass


@ranks.joined()
def dismiss() -> None:
    """Tell those who `follow` that the first process does not train."""
    ranks.any_of(False)


def code_of(spec: dict[str, Any], source: str) -> str:
    """A digest of the code behind a training: a state, or a checkpoint that was kept, of other code is of another training."""
    used = frozenset(names_in([spec, source]))
    return fingerprint(of_this_package().code("verbs.train", used=used, without=unused("train", spec)))


def _parents(spec: dict[str, Any], dataset: Any, checkpoints: Mapping[str, Path], device: torch.device) -> dict[str, Generator]:
    """The trained methods that a training starts from, by their roles, each of the same data."""
    generators = {}
    for role, method in spec.get("parents", {}).items():
        if role not in checkpoints:
            raise ConfigurationError(f"the checkpoint of `{role}` is not given", fix=f"--parent {role}=PATH, of '{method}'")
        generators[role] = load(checkpoints[role], device)
        check_belongs({"dataset": dataset.name, "method": method}, checkpoints[role], generators[role], dataset)
    return generators


def _description(checkpoint: Path, parent: Generator) -> dict[str, Any]:
    """What a checkpoint says of one that it started from."""
    kept = ("spec", "facts", "seed", "data_sha256", "parents")
    return {key: parent.metadata[key] for key in kept if key in parent.metadata} | {"sha256": sha256_of(checkpoint)}


class _Job:
    """A training with its folder, its reports and what it publishes."""

    def __init__(
        self, spec: dict[str, Any], dataset: Any, seed: int, output: Path, device: torch.device, parents: Mapping[str, Path]
    ):
        self.dataset, self.seed, self.output = dataset, seed, output
        self.label = f"train {spec['dataset']}/{spec['method']}/seed{seed}"
        self.leads = ranks.place()[0] == 0
        self.plan: Training = convert(Training, spec["training"], "training")
        ranks.check(self.plan.batch)
        facts = Facts.of(spec, dataset)
        generators = _parents(spec, dataset, parents, device)
        objective = METHODS.build(spec["kind"], **spec["options"]).objective(facts, generators, seed).to(device)
        self.state = State(objective, self.plan)
        self.metadata = {
            "spec": spec,
            "facts": facts.as_dict(),
            "seed": seed,
            "kimg": self.plan.steps * self.plan.batch / 1000,
            "data_sha256": dataset.sha256,
            "parameters": sum(p.numel() for p in objective.parameters()),
            "packages": versions(),
            "code_sha256": code_of(spec, dataset.manifest["source"]),
        }
        if generators:
            self.metadata["parents"] = {role: _description(parents[role], one) for role, one in generators.items()}
        self.folder = StateFolder(output, self.metadata)
        self.device, self.peak = device, utilisation.peak(device)
        self.operations = utilisation.operations(objective, dataset, self.plan) if self.peak else 0.0
        before = self.folder.load(self.state)
        self.began, self.seconds_before = time.perf_counter(), before.get("seconds", 0.0)
        self.began_cpu, self.cpu_before = time.process_time(), before.get("cpu_seconds", 0.0)

    def records(self, termination: Termination) -> Iterator[dict[str, Any]]:
        """Train to the end, or to a termination; yields each report, saves the state as often as the plan says."""
        state, batch, state_steps = self.state, self.plan.batch, self.plan.steps_in(self.plan.state_kimg)
        where = f"resumed at {state.kimg:g} kimg" if state.step else "from the start"
        if self.leads:
            size, length, share = self.metadata["parameters"], self.metadata["kimg"], ranks.place()[1]
            shared = f", shared by {share} processes" if share > 1 else ""
            print(f"{self.label}: {size:,} parameters, {length:g} kimg, {where}{shared}", flush=True)
        progress = Progress(self.label, self.plan.steps * batch, "img", state.step * batch, shown=self.leads)
        began, began_step = time.perf_counter(), state.step
        steps = iter(self._steps())
        while True:
            if state.step < self.plan.steps and self._asked_to_stop(termination):
                self.save_state()
                progress.close()
                raise Interrupted(f"{self.label}: state saved at {state.kimg:g} kimg; run the same command again to go on")
            if next(steps, None) is None:
                break
            progress.advance(batch)
            last = state.step == self.plan.steps
            if state.record is not None:
                rate = (state.step - began_step) * batch / (time.perf_counter() - began)
                state.record |= self._measured(rate)
                left = time.strftime("%H:%M:%S", time.gmtime((self.plan.steps - state.step) * batch / rate))
                losses = {name: f"{value:.4f}" for name, value in state.record.items() if name.endswith("loss")}
                progress.report(kimg=f"{state.kimg:.1f}", **losses, **{"images/s": f"{rate:.0f}", "ETA": left})
                yield state.record
            if (kept := self.plan.snapshots) and (last or state.step % self.plan.steps_in(kept.kimg) == 0):
                self.save_snapshot()
            if state.step % state_steps == 0 and not last:
                self.save_state()
        progress.close()

    def _measured(self, rate: float) -> dict[str, float]:
        """What a report says of the machine, at a rate in images a second over all processes."""
        found = {"images_per_second": round(rate, 1), "memory_gib": round(utilisation.memory(self.device), 3)}
        if self.peak:
            share = self.operations * rate / self.plan.batch / (self.peak * ranks.place()[1])
            found["mfu"] = round(share, 4)
        return found

    def _asked_to_stop(self, termination: Termination) -> bool:
        """Whether this process was asked to; of several, at a report, whether one of them was, so that all stop at one step."""
        alone = ranks.place()[1] == 1
        return (alone or self.state.record is not None) and ranks.any_of(termination.requested)

    def _steps(self) -> Iterator[State]:
        """The steps of the training; an error in them says where the last good state is."""
        try:
            yield from fit(self.state.objective, self.dataset, self.plan, self.seed, self.state)
        except DivergenceError as error:
            saved = self.folder.folder / STATE
            last = saved if saved.exists() else "none yet, see training.state_kimg"
            what = f"{self.label}: {error.what}"
            raise DivergenceError(what, why=error.why, fix=f"{error.fix}; last good state: {last}") from None

    def save_state(self) -> None:
        """Write what a later start needs to go on from here to the same bits, on any number of processes."""
        if self.leads:
            self.folder.save(self.state, seconds=self.seconds, cpu_seconds=self.cpu_seconds)

    def save_snapshot(self) -> None:
        """Write the averages of which `hamflow average` makes those of other lengths."""
        if self.leads and self.plan.snapshots:
            about = self.metadata | {"step": self.state.step, "lengths": list(self.plan.snapshots.lengths)}
            save_tensors(snapshot_of(self.output, self.state.step), self.state.snapshot(), about)

    @property
    def published(self) -> list[Path]:
        """The files that a training leaves, in the order in which they are written."""
        return [self.output / name for name in (LOG, CIRCUMSTANCES, CHECKPOINT)]

    def publish(self, keep: bool = False) -> Path:
        """Copy the log, write the checkpoint, drop the state: in this order, so that a kill between them loses nothing."""
        log, run, path = self.published
        write_text(log, self.folder.log.read_text(encoding="utf-8"))
        write_json(run, circumstances(wall_seconds=self.seconds, cpu_seconds=self.cpu_seconds))
        curve = [{key: value for key, value in record.items() if key not in MEASURED} for record in self.state.history]
        save_tensors(path, self.state.averaged.state_dict(), self.metadata | {"history": curve})
        if keep:
            self.folder.keep(self.published)
        else:
            self.folder.remove()
        return path

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, without what was lost to kills."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process in the training so far, all threads together, without what was lost to kills."""
        return self.cpu_before + time.process_time() - self.began_cpu
