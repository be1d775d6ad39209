"""Samples of a trained model at one setting, in batches."""

from typing import Any

import torch
from torch import Tensor

from hamflow.draws import SampleDraws
from hamflow.models import Model
from hamflow.progress import Progress
from hamflow.sampling.budget import ADAPTIVE, steps_for
from hamflow.sampling.grids import time_grid
from hamflow.sampling.solvers import count_evaluations, solve


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
