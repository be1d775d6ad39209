"""A training step and sampling against public libraries: the same network, batch, optimiser and precision, in turns.

Each library's step is that of its own examples, with its own path, loss and average; Adam is torch's, as there.
"""

import copy
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import ROOT, Row
from torch import Tensor, nn

from hamflow import config, data
from hamflow.methods.base import METHODS, Facts
from hamflow.registry import convert
from hamflow.training.fit import _Fitting
from hamflow.training.plan import Training
from hamflow.training.state import State

ROUNDS, STEPS, SAMPLES = 21, 10, 64
AT_LEAST = 1.05  # the best peer's step by ours
# The examples of all of them leave the network in torch's format of old; the other is as our training has it.
FORMATS = {torch.contiguous_format: "", torch.channels_last: ", channels last"}


class Contestant(NamedTuple):
    """A step of training, and samples by so many steps of Euler."""

    step: Callable[[], Any]
    sample: Callable[[], Any]


class Network(nn.Module):
    """The quickstart's U-Net as libraries call it: (x, time or noise level)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, **_: Any) -> Tensor:
        return self.network(x, t.float().clamp(1e-3, 80).log().div(4).expand(len(x)))


def peers(folder: Path) -> Iterator[Row]:
    """Ours by each that is installed, in seconds of CPU of one thread."""
    torch.set_num_threads(1)
    parameters = config.load([ROOT / "params.yaml"])
    data.prepare(config.dataset_spec(parameters, "digits"), folder / "peer-digits")
    digits = data.load(folder / "peer-digits")
    spec = config.training_spec(parameters, "digits", "flow_matching")
    objective = METHODS.build(spec["kind"], **spec["options"]).objective(Facts.of(spec, digits), {}, 0)
    contestants = {"hamflow": ours(spec, digits, copy.deepcopy(objective))}
    rows, batch = digits.batch(range(digits.count))[0], spec["training"]["batch"]
    for name, make in PEERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: see tools/bench/peers.txt")
            continue
        for format, suffix in FORMATS.items():
            network = Network(copy.deepcopy(objective.field.network)).train().to(memory_format=format)
            contestants[name + suffix] = make(
                network, lambda: rows[torch.randint(len(rows), (batch,))], torch.randn(SAMPLES, *rows.shape[1:])
            )
    for what, rounds in (("step", ROUNDS), ("sample", 5)):
        seconds = in_turns({name: getattr(one, what) for name, one in contestants.items()}, rounds)
        label = "a training step" if what == "step" else f"{SAMPLES} samples, {STEPS} steps of Euler"
        yield Row(f"{label}, hamflow", 1000 * float(np.median(seconds["hamflow"])), "ms CPU")
        ratios = {name: float(np.median(seconds[name] / seconds["hamflow"])) for name in contestants if name != "hamflow"}
        for name, ratio in ratios.items():
            yield Row(f"{label}, {name}", ratio, "by hamflow")
        for suffix in FORMATS.values() if ratios and what == "step" else ():
            best = min(ratio for name, ratio in ratios.items() if name.endswith(suffix) and (suffix or "," not in name))
            yield Row(f"{label}, hamflow by the best peer{suffix}", 1 / best, "times", limit=None if suffix else 1 / AT_LEAST)


def in_turns(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of CPU of each work in each round; the order turns, and two rounds before are not counted."""
    found: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.process_time()
            works[name]()
            if number >= 2:
                found[name].append(time.process_time() - began)
    return {name: np.array(seconds) for name, seconds in found.items()}


def ours(spec: dict[str, Any], digits: Any, objective: Any) -> Contestant:
    plan: Training = convert(Training, spec["training"] | {"report_kimg": 1e6}, "training")
    fitting = _Fitting(objective, digits, plan, 0, State(objective, plan))
    generator = METHODS.build(spec["kind"], **spec["options"]).generator(copy.deepcopy(objective).eval())
    return Contestant(fitting.step, lambda: generator.sample(range(SAMPLES), "euler", STEPS))


def trainer(
    network: nn.Module, loss_of: Callable[[], Tensor], average: Callable[[], Any], clip: bool = True
) -> Callable[[], None]:
    """The step that all examples have in common."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6, betas=(0.9, 0.99))

    def step() -> None:
        optimiser.zero_grad()
        loss_of().backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        average()

    return step


def torchcfm(network: Network, batch: Callable[[], Tensor], noise: Tensor) -> Contestant:
    """As examples/images/cifar10/train_cifar10.py: the average is a loop over the state's tensors."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchdiffeq import odeint

    matcher, averaged = ConditionalFlowMatcher(sigma=0.0), copy.deepcopy(network)

    def loss() -> Tensor:
        x = batch()
        t, x_t, u = matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return (network(x_t, t) - u).square().mean()

    def average() -> None:
        source, target = network.state_dict(), averaged.state_dict()
        for key in source:
            target[key].data.copy_(target[key].data * 0.999 + source[key].data * (1 - 0.999))

    @torch.no_grad()
    def sample() -> None:
        odeint(lambda t, x: averaged(x, t), noise, torch.linspace(0, 1, STEPS + 1), method="euler")

    return Contestant(trainer(network, loss, average), sample)


def flow_matching(network: Network, batch: Callable[[], Tensor], noise: Tensor) -> Contestant:
    """As examples/image: no clipping; the package has no average, so that of torch stands here."""
    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    path, averaged = CondOTProbPath(), AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    def loss() -> Tensor:
        x = batch()
        found = path.sample(t=torch.rand(len(x)), x_0=torch.randn_like(x), x_1=x)
        return (network(found.x_t, found.t) - found.dx_t).square().mean()

    def sample() -> None:
        ODESolver(velocity_model=averaged).sample(x_init=noise, method="euler", step_size=1 / STEPS)

    return Contestant(trainer(network, loss, lambda: averaged.update_parameters(network), clip=False), sample)


def torchvision_works() -> bool:
    """Whether torchvision is there and fits torch; nothing of a failed import is left."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def import_bare_k_diffusion() -> None:
    """Make it a package whose modules are imported one by one, and stand in for a torchvision that does not fit torch."""
    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)  # type: ignore[union-attr, arg-type]
    sys.modules["k_diffusion"] = package
    if not torchvision_works():
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
        sys.modules["torchvision.transforms"].functional = sys.modules[name]  # type: ignore[attr-defined]


def k_diffusion(network: Network, batch: Callable[[], Tensor], noise: Tensor) -> Contestant:
    """As train.py. Three modules are imported: the package as a whole needs torchvision, which fits few builds of torch."""
    if "k_diffusion" not in sys.modules:
        import_bare_k_diffusion()
    from k_diffusion import layers, sampling, utils

    denoiser, averaged = layers.Denoiser(network, sigma_data=0.5), layers.Denoiser(copy.deepcopy(network), sigma_data=0.5)

    def loss() -> Tensor:
        x = batch()
        return denoiser.loss(x, torch.randn_like(x), utils.rand_log_normal([len(x)], -1.2, 1.2)).mean()

    @torch.no_grad()
    def sample() -> None:
        sampling.sample_euler(averaged, 10 * noise, sampling.get_sigmas_karras(STEPS, 0.02, 10.0), disable=True)

    average = lambda: utils.ema_update(denoiser, averaged, 0.999)  # noqa: E731
    return Contestant(trainer(network, loss, average, clip=False), sample)


def diffusers(network: Network, batch: Callable[[], Tensor], noise: Tensor) -> Contestant:
    """As examples/unconditional_image_generation, with Adam, and the flow-matching scheduler for samples."""
    if not torchvision_works():
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # "is not there", which it can do without
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
    from diffusers.training_utils import EMAModel

    scheduler, averaged = DDPMScheduler(num_train_timesteps=1000), EMAModel(network.parameters(), decay=0.999)

    def loss() -> Tensor:
        x = batch()
        n, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        return nn.functional.mse_loss(network(scheduler.add_noise(x, n, t), t), n)

    @torch.no_grad()
    def sample() -> None:
        steps, x = FlowMatchEulerDiscreteScheduler(), noise
        steps.set_timesteps(STEPS)
        for t in steps.timesteps:
            x = steps.step(network(x, t), t, x, return_dict=False)[0]

    return Contestant(trainer(network, loss, lambda: averaged.step(network.parameters())), sample)


PEERS = {"torchcfm": torchcfm, "flow_matching": flow_matching, "k_diffusion": k_diffusion, "diffusers": diffusers}
