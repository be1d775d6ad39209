"""Convolutional encoder and decoder of a variational autoencoder of images."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from hamflow.errors import ConfigurationError
from hamflow.networks.blocks import group_norm, zeroed


class Block(nn.Module):
    """norm, SiLU, convolution, twice, around a skip.

    Args:
        inward, outward: channels.
    """

    def __init__(self, inward: int, outward: int):
        super().__init__()
        self.layers = nn.Sequential(
            *(group_norm(inward), nn.SiLU(), nn.Conv2d(inward, outward, 3, padding=1)),
            *(group_norm(outward), nn.SiLU(), zeroed(nn.Conv2d(outward, outward, 3, padding=1))),
        )
        self.skip = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H, W]."""
        return (self.skip(x) + self.layers(x)) * math.sqrt(0.5)


def latent_shape(shape: tuple[int, ...], channels: int, multipliers: Sequence[int]) -> tuple[int, int, int]:
    """The shape of a latent: each multiplier after the first halves height and width.

    Raises:
        ConfigurationError: no image, or one that cannot be halved that often.
    """
    if len(shape) != 3:
        raise ConfigurationError(
            f"a variational autoencoder is convolutional and takes images, but the data have shape {shape}",
            fix="run it on a data set of images",
        )
    halvings = len(multipliers) - 1
    if shape[1] % 2**halvings or shape[2] % 2**halvings:
        raise ConfigurationError(
            f"images of {shape[1]}x{shape[2]} cannot be halved {halvings} times", fix="shorten `multipliers` of the autoencoder"
        )
    return channels, shape[1] >> halvings, shape[2] >> halvings


def encoder(planes: int, latent: int, channels: int, multipliers: Sequence[int], blocks: int) -> nn.Sequential:
    """[N, planes, H, W] -> [N, latent, h, w], with group and no batch normalisation: samples do not depend on each other."""
    widths = [channels * multiplier for multiplier in multipliers]
    layers: list[nn.Module] = [nn.Conv2d(planes, widths[0], 3, padding=1)]
    for level, width in enumerate(widths):
        if level:
            layers += [nn.AvgPool2d(2)]
        layers += [Block(widths[max(level - 1, 0)] if i == 0 else width, width) for i in range(blocks)]
    return nn.Sequential(*layers, group_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], latent, 3, padding=1))


def decoder(planes: int, latent: int, channels: int, multipliers: Sequence[int], blocks: int) -> nn.Sequential:
    """[N, latent, h, w] -> [N, planes, H, W]: the encoder's mirror image."""
    widths = [channels * multiplier for multiplier in reversed(multipliers)]
    layers: list[nn.Module] = [nn.Conv2d(latent, widths[0], 3, padding=1)]
    for level, width in enumerate(widths):
        if level:
            layers += [nn.Upsample(scale_factor=2)]
        layers += [Block(widths[max(level - 1, 0)] if i == 0 else width, width) for i in range(blocks)]
    return nn.Sequential(*layers, group_norm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], planes, 3, padding=1))
