"""Where a training step's time goes, and what it costs beyond forward, backward and optimiser."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import ROOT, Row

from hamflow import config, data
from hamflow.data.dataset import Resident
from hamflow.draws import BatchDraws
from hamflow.methods.base import METHODS, Facts
from hamflow.registry import convert
from hamflow.training.adam import Adam, way_of
from hamflow.training.fit import Turn, _Fitting
from hamflow.training.plan import Training
from hamflow.training.state import State

ROUNDS = {"digits": 21, "32x32": 7}
BEYOND = {"digits": 0.06, "32x32": 0.03}  # what is allowed, of forward, backward and optimiser
TWO_MILLION = {"kind": "unet", "channels": 32, "multipliers": [1, 2, 2], "blocks": 2, "attention": [8], "dropout": 0.0}


def steps(folder: Path) -> Iterator[Row]:
    """The quickstart's network on digits, and one of two million parameters at 32x32, in seconds of CPU of one thread."""
    torch.set_num_threads(1)
    parameters = config.load([ROOT / "params.yaml"])
    data.prepare(config.dataset_spec(parameters, "digits"), folder / "step-digits")
    digits = data.load(folder / "step-digits")
    spec = config.training_spec(parameters, "digits", "flow_matching")
    yield from breakdown("digits", spec, Facts.of(spec, digits), digits, spec["training"]["batch"])
    colours = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    facts = Facts(name="noise", shape=(3, 32, 32), classes=0, sigma_data=0.5, box=(-1.0, 1.0), network=TWO_MILLION)
    yield from breakdown("32x32", spec, facts, Resident("image", torch.from_numpy(colours), None), 16)


def breakdown(name: str, spec: dict[str, Any], facts: Facts, rows: Any, batch: int) -> Iterator[Row]:
    """Medians over rounds, in each of which every part and a whole step take their turn."""
    plan: Training = convert(Training, spec["training"] | {"batch": batch, "microbatch": batch, "report_kimg": 1e6}, "training")
    objective = METHODS.build(spec["kind"], **spec["options"]).objective(facts, {}, 0)
    state = State(objective, plan)
    fitting, turn = _Fitting(objective, rows, plan, 0, state), objective.turns[0]
    found: dict[str, list[float]] = {}
    for number in range(ROUNDS[name] + 2):
        parts = one_round(fitting, turn)
        if number >= 2:  # the first are of empty caches
            for part, seconds in parts.items():
                found.setdefault(part, []).append(seconds)
    median = {part: float(np.median(seconds)) for part, seconds in found.items()}
    size = sum(weight.numel() for weight in objective.parameters())
    network = f"{name}, {size / 1e6:.2g} M"
    for part, seconds in median.items():
        yield Row(f"{network}: {part}", 1000 * seconds, "ms CPU")
    plain = [sum(parts) for parts in zip(*(found[part] for part in ("forward", "backward", "optimiser")), strict=True)]
    beyond = float(np.median(np.array(found["a whole step"]) / np.array(plain))) - 1
    yield Row(f"{network}: a step beyond forward, backward, optimiser", beyond, "of these", limit=BEYOND[name])


def one_round(fitting: Any, turn: Turn) -> dict[str, float]:
    """Seconds of CPU of each part of a step, done by hand on the state of a training, and of a step as it is."""
    objective, state, plan = fitting.objective, fitting.state, fitting.plan
    weights = state.weights[turn.player]
    if not hasattr(fitting, "plain"):
        fitting.plain = Adam([weight.detach().clone() for weight in weights], lr=1e-6, **way_of(weights))
    own = fitting.plain.param_groups[0]["params"]
    parts = {}

    def part(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        parts[name] = time.process_time() - began
        return result

    def draw() -> Any:
        draws = BatchDraws(0, "training", turn.name, state.step, 0, batch=plan.batch)
        return draws.uniform("time"), draws.normal("noise", objective.field.shape)

    def optimise() -> None:
        for weight, gradient in zip(own, gradients, strict=True):
            weight.grad = gradient
        fitting.plain.step()

    part("a whole step", fitting.step)
    x, _ = part("data", lambda: fitting.rows.batch(fitting.orders[turn.name].rows(plan.batch * state.step, plan.batch)))
    u, noise = part("draws", draw)
    loss = part("forward", lambda: (objective.field(x + noise, u.float()) - noise).square().mean())
    gradients = part("backward", lambda: torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))
    part("optimiser", optimise)
    part("clipping", lambda: torch.nn.utils.clip_grad_norm_(own, 1.0))
    part("average", lambda: state.average.update(objective, plan.batch * state.step, plan.batch))
    part("logging", lambda: float(loss.detach()))
    return parts
