"""Networks for points and for images: forward(x, noise_label, class_label=None) -> shaped like x."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import nn

from hamflow import draws
from hamflow.errors import ConfigurationError
from hamflow.networks.base import NETWORKS
from hamflow.networks.mlp import MLP
from hamflow.networks.unet import UNet
from hamflow.registry import convert

__all__ = ["MLP", "UNet", "build", "check", "names"]


def names() -> list[str]:
    """The kinds of network."""
    return NETWORKS.names()


def build(spec: Mapping[str, Any], shape: tuple[int, ...], classes: int = 0, seed: int = 0, part: str = "network") -> nn.Module:
    """The network of a parameter entry {kind, ...}, with initial weights of its own for each (seed, part).

    Args:
        shape: of one sample, (D,) for points or (C, H, W) for images.
        classes: number of class labels, 0 for an unconditional network.
        seed, part: name the stream of the initial weights.
    Raises:
        ConfigurationError: a kind that does not fit the data, an unknown kind or option.
    """
    check(spec, shape)
    with draws.seeded("cpu", seed, "weights", part):
        network = NETWORKS.build(spec["kind"], shape=shape, classes=classes, **_options(spec))
    return network.to(memory_format=torch.channels_last) if len(shape) == 3 else network


def check(spec: Mapping[str, Any], shape: tuple[int, ...], where: str = "network") -> None:
    """Raise ConfigurationError for a network that cannot be, or does not fit samples of that shape, without building it."""
    convert(Annotated[dict[str, Any], NETWORKS.entry("kind")], spec, where)
    kind = NETWORKS.get(spec["kind"])
    if len(shape) != kind.sample_dims:
        fitting = [name for name in names() if NETWORKS.get(name).sample_dims == len(shape)]
        raise ConfigurationError(
            f"network '{spec['kind']}' takes samples of {kind.sample_dims} dimensions, the data have shape {shape}",
            fix=f"`{where}`: {' or '.join(fitting)}",
        )
    if hasattr(kind, "check"):
        kind.check(shape, **_options(spec))


def sample_dims(spec: Mapping[str, Any]) -> int:
    """The number of dimensions of a sample that a network takes: 1 for points, 3 for images."""
    return NETWORKS.get(spec["kind"]).sample_dims


def takes_augmentation(spec: Mapping[str, Any]) -> bool:
    """Whether a network is told how its images were augmented: forward(x, noise_label, class_label, augmentation [N, 9])."""
    return bool(getattr(NETWORKS.check(spec["kind"], _options(spec), "network"), "augmentation", False))


def _options(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "kind"}
