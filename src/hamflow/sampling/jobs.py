"""Drawing samples from a checkpoint: every (sampler, nfe) of a spec, one file each."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow import data, models, runtime
from hamflow.draws import SEEDS_PER_RUN, SampleDraws
from hamflow.errors import DivergenceError
from hamflow.files import fingerprint, save_array, sha256_of, write_json
from hamflow.models import Model
from hamflow.pipeline.provenance import RUN_FILE, circumstances, origin, read_circumstances
from hamflow.progress import Progress
from hamflow.sampling.budget import ADAPTIVE, steps_for
from hamflow.sampling.grids import time_grid
from hamflow.sampling.solvers import count_evaluations, solve


def sample(spec: dict[str, Any], checkpoint: Path, data_folder: Path, seed: int, output: Path, device: str = "auto") -> None:
    """Draw spec["n_samples"] samples for each setting of the spec: `<sampler>-nfe<n>.npy` and `.json` in `output`.

    `run.json` beside them holds what differs between two runs of this work: commit, host, seconds of each setting.

    Sample i starts from noise of seed `1e6 seed + i`, whatever the batch size, sampler and device; the class label of a
    conditional model is that number modulo the number of classes.

    Args:
        spec: `hamflow.config.sampling_spec`.
        checkpoint: model.safetensors of the method and data set of the spec.
        data_folder: the data set it was trained on (for the pixel format and the check that they belong together).
        seed: of the training run; chooses a range of a million sample seeds.
        output: folder of the samples; uint8 [N, H, W, C] for images, float32 [N, D] for points.
    Raises:
        CheckpointError: the checkpoint is of another method or other data. DivergenceError: samples that are not finite.
    """
    chosen = runtime.configure(device)
    model, dataset = models.load(checkpoint, chosen), data.load(data_folder)
    models.check_belongs(spec, checkpoint, model, dataset)
    facts: dict[str, Any] = {
        "seed": seed,
        "first_seed": seed * SEEDS_PER_RUN,
        "checkpoint_sha256": sha256_of(checkpoint),
        "data_sha256": dataset.sha256,
        "params_sha256": fingerprint(spec),
        "device": runtime.describe_device(chosen),
    }
    seconds = {}
    for sampler, nfe in spec["settings"]:
        began = time.perf_counter()
        samples, spent = draw(model, spec, sampler, nfe, range(facts["first_seed"], facts["first_seed"] + spec["n_samples"]))
        if not bool(torch.isfinite(samples).all()):
            raise DivergenceError(
                f"{sampler} with {nfe} evaluations gave samples that are not finite, from {checkpoint}",
                why="their metrics would mean nothing",
                fix="look at the model's training curve; a smaller learning rate may be needed",
            )
        array = dataset.to_pixels(samples) if dataset.kind == "image" else samples.cpu().numpy().astype(np.float32)
        path = output / f"{sampler}-nfe{nfe}.npy"
        save_array(path, array)
        setting = {"sampler": sampler, "nfe": spent, "nfe_requested": nfe, "n": len(array), "grid": spec["grid"]}
        write_json(path.with_suffix(".json"), {**setting, **origin(**facts)})
        seconds[path.stem] = time.perf_counter() - began
    trained = read_circumstances(checkpoint.parent)
    write_json(output / RUN_FILE, {"sampling": circumstances(wall_seconds=seconds), "training": trained})


def draw(model: Model, spec: dict[str, Any], sampler: str, nfe: int | str, seeds: range) -> tuple[Tensor, int]:
    """Samples of the given seeds, float64 [N, *shape] in data units, and the NFE that each cost (the largest, if adaptive).

    Args:
        spec: of the grid: keys grid, rho, sigma_min, sigma_max, and batch (samples at a time).
    """
    steps = steps_for(sampler, nfe)
    times = time_grid(
        model.flow, steps if isinstance(steps, int) else 1, spec["grid"], spec["rho"], spec["sigma_min"], spec["sigma_max"]
    )
    progress = Progress(f"sample {spec['dataset']}/{spec['method']} {sampler} nfe {nfe}", len(seeds), "sample")
    parts, spent = [], 0
    for start in range(0, len(seeds), spec["batch"]):
        part = seeds[start : start + spec["batch"]]
        samples, cost = _draw_batch(model, sampler, times, part)
        if steps != ADAPTIVE and cost != nfe:
            raise AssertionError(f"{sampler} spent {cost} evaluations instead of {nfe}")
        parts.append(samples)
        spent = max(spent, cost)
        progress.advance(len(part))
    progress.report(n=len(seeds), NFE=spent)
    progress.close()
    return torch.cat(parts), spent


@torch.inference_mode()
def _draw_batch(model: Model, sampler: str, times: Tensor, seeds: range) -> tuple[Tensor, int]:
    device = next(model.network.parameters()).device
    labels = torch.tensor([s % model.classes for s in seeds], device=device) if model.classes else None
    velocity = count_evaluations(model.flow.unfold(lambda x, t: model.velocity(x, t, labels)))
    start = model.flow.terminal(model.flow.noise(SampleDraws(seeds), model.shape).to(device))
    return model.flow.settle(solve(sampler, velocity, start, times)), velocity.count
