"""Networks for points and for images: forward(x, noise_label, class_label=None) -> shaped like x."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from hamflow.errors import ConfigurationError
from hamflow.networks.mlp import MLP
from hamflow.networks.unet import UNet
from hamflow.registry import Registry

__all__ = ["MLP", "NETWORKS", "UNet", "build"]

NETWORKS: Registry = Registry("network", "hamflow.networks")
NETWORKS.register("mlp")(MLP)
NETWORKS.register("unet")(UNet)


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
