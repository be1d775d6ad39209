"""Networks for points and for images: forward(x, noise_label, class_label=None) -> shaped like x."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from hamflow.errors import ConfigurationError
from hamflow.networks.base import NETWORKS
from hamflow.networks.mlp import MLP
from hamflow.networks.unet import UNet

__all__ = ["MLP", "UNet", "build", "names"]


def names() -> list[str]:
    """The kinds of network."""
    return NETWORKS.names()


def build(spec: Mapping[str, Any], shape: tuple[int, ...], classes: int = 0) -> nn.Module:
    """The network of a parameter entry {kind, ...}.

    Args:
        shape: of one sample, (D,) for points or (C, H, W) for images.
        classes: number of class labels, 0 for an unconditional network.
    Raises:
        ConfigurationError: a kind that does not fit the data, an unknown kind or option.
    """
    options = dict(spec)
    kind = NETWORKS.get(options.pop("kind"))
    if len(shape) != kind.sample_dims:
        raise ConfigurationError(
            f"network '{spec['kind']}' takes samples of {kind.sample_dims} dimensions, the data have shape {shape}",
            fix="unet for images, mlp for points",
        )
    return NETWORKS.build(spec["kind"], shape=shape, classes=classes, **options)
