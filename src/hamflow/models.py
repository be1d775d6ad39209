"""A model: a flow, what the network means in it, and the network; built from a spec or loaded from a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hamflow import config, draws, flows, networks, parameterisation
from hamflow.dynamics import broadcast
from hamflow.errors import CheckpointError, ConfigurationError
from hamflow.files import load_tensors
from hamflow.flows import GaussianFlow, HamiltonianFlow
from hamflow.parameterisation import Parameterisation


@dataclass
class Model:
    """V(x, t, label) of one method on one data set.

    Attributes:
        shape: of one sample, (C, H, W) or (D,).
        classes: number of class labels, 0: unconditional.
        resolved: what `build` needs besides the spec: {shape, classes, sigma_data, flow}.
        metadata: of the checkpoint it was loaded from; empty for a new model.
    """

    flow: HamiltonianFlow
    parameterisation: Parameterisation
    network: nn.Module
    shape: tuple[int, ...]
    classes: int
    resolved: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)

    def velocity(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """V(x_t, t), in x's dtype; the network itself computes in its own.

        Args:
            x: [N, *shape], data units. t: scalar or [N], time units. label: int64 [N] for a conditional model.
        """
        return self.parameterisation.velocity(self._network_in_its_dtype, x, t, label)

    def score(self, y: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """The score at y of the data smoothed by noise of level sigma, as the model implies it; arguments as `denoise`."""
        return self.flow.smoothed_score(lambda x, t: self.velocity(x, t, label), y, sigma)

    def denoise(self, y: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """D(y; sigma) = E[x_0 | x_0 + sigma n = y] that the model implies.

        Raises:
            CheckpointError: the flow has no denoiser (reflection).
        Source: Tweedie's formula, D = y + sigma^2 score.
        """
        if not isinstance(self.flow, GaussianFlow):
            raise CheckpointError(f"flow '{self.flow.name}' implies no denoiser: its velocity does not determine E[x_0 | x_t]")
        return y + broadcast(sigma, y) ** 2 * self.score(y, sigma, label)

    def _network_in_its_dtype(self, x: Tensor, noise_label: Tensor, label: Tensor | None) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return self.network(x.to(dtype), noise_label.to(dtype), label).to(x.dtype)


def resolve(spec: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """What a training spec leaves to the data: the flow's numbers, the spread, the shape of a sample, the classes.

    Raises:
        ConfigurationError: a flow that cannot be, or a conditional model of data without classes.
    """
    if spec["conditional"] and not dataset.classes:
        raise ConfigurationError(
            f"`datasets.{dataset.name}.conditional` is true, but these data have no classes",
            fix="set it to false; source `images` takes sub-folders for classes",
        )
    flow = flows.resolve(spec["flow"], dataset.sigma_data, dataset.box)
    return {
        "flow": {"name": flow.name, **flow.options},
        "sigma_data": dataset.sigma_data,
        "shape": list(dataset.shape),
        "classes": dataset.classes if spec["conditional"] else 0,
    }


def build(spec: dict[str, Any], resolved: dict[str, Any], seed: int = 0) -> Model:
    """A new model of a training spec, its weights drawn from `seed` without touching the global generator."""
    options = dict(resolved["flow"])
    flow = flows.build(options.pop("name"), **options)
    shape, classes = tuple(resolved["shape"]), resolved["classes"]
    with draws.seeded("cpu", seed, "weights"):
        network = networks.build(spec["network"], shape, classes)
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Model(
        flow=flow,
        parameterisation=parameterisation.build(spec["parameterisation"], flow, resolved["sigma_data"]),
        network=network,
        shape=shape,
        classes=classes,
        resolved=resolved,
    )


def load(path: str | Path, device: torch.device | str = "cpu") -> Model:
    """The model of a checkpoint, ready to sample: no gradients, evaluation mode.

    Raises:
        CheckpointError: the file is absent, truncated, foreign, or its weights do not fit its own description.
    """
    tensors, metadata = load_tensors(path)
    try:
        config.check_checkpoint(metadata)
        with _NoMoreThan(sum(tensor.numel() for tensor in tensors.values())):
            model = build(metadata["spec"], metadata["resolved"])
        _check_fit(model.network, tensors)
        model.network.load_state_dict(tensors)
    except (ConfigurationError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = error.what if isinstance(error, ConfigurationError) else (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"the weights in {path} do not fit the network that it describes ({reason})",
            why="it was written by another version, or altered",
            fix="train it again",
        ) from error
    model.network.to(device).requires_grad_(False).eval()
    model.metadata = metadata
    return model


def check_belongs(named: Mapping[str, Any], checkpoint: str | Path, model: Model, dataset: Any) -> None:
    """Refuse a checkpoint for results that would stand under another data set's or method's name.

    Args:
        named: what the results will say of themselves: `dataset` and `method`, either of which may be absent.
        checkpoint: its path. dataset: the prepared data set.
    Raises:
        CheckpointError: it was trained on other data, or by another method.
    """
    trained = model.metadata["spec"]
    for key in ("dataset", "method"):
        if key in named and trained[key] != named[key]:
            raise CheckpointError(
                f"{checkpoint} was trained with {key} '{trained[key]}', but results of '{named[key]}' are asked for",
                why="they would stand under the wrong name in every table",
                fix=f"give the checkpoint of '{named[key]}', or retrain",
            )
    if model.metadata["data_sha256"] != dataset.sha256:
        raise CheckpointError(
            f"{checkpoint} was trained on other data than those in {dataset.folder} "
            f"(sha256 {model.metadata['data_sha256'][:12]}…, now {dataset.sha256[:12]}…)",
            why="it would be compared with data that it never saw",
            fix="train again, or restore the data with `dvc checkout`",
        )


class _NoMoreThan(TorchFunctionMode):
    """Refuses to make more weights than a file holds: a description may ask for more than the memory of the machine.

    Building on torch's device "meta" would need no memory, but imports its compiler (a second) in every job.
    """

    def __init__(self, count: int):
        super().__init__()
        self.left = count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.empty:  # of which every layer makes its weights
            self.left -= math.prod(args[0] if isinstance(args[0], list | tuple) else args)
            if self.left < 0:
                raise ValueError("it has more weights than the file")
        return function(*args, **(kwargs or {}))


def _check_fit(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where a network has other names, shapes or types of weights."""
    described = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in network.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    for name in described | found:
        if described.get(name) != found.get(name):
            raise ValueError(f"'{name}' is {found.get(name, 'absent')}, described as {described.get(name, 'absent')}")
