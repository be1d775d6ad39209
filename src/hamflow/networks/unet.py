"""A U-Net for images of 8x8 to 64x64: small and large settings are the same class."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.errors import ConfigurationError
from hamflow.networks.base import NETWORKS
from hamflow.networks.blocks import Attention, ResidualBlock, group_norm, zeroed
from hamflow.networks.embeddings import Conditioning
from hamflow.registry import Count, Fraction

CONDITION_PER_CHANNEL = 4  # width of the conditioning vector as a multiple of `channels`


@NETWORKS.register("unet")
class UNet(nn.Module):
    """Images at unit spread and a noise label -> a field of the same shape.

    Args:
        shape: (C, H, W); H and W divisible by 2^(number of resolutions - 1).
        classes: number of class labels, 0: unconditional.
        channels: width at full resolution.
        multipliers: width of each resolution as a multiple of `channels`.
        blocks: residual blocks a resolution on the way down; one more on the way up.
        attention: resolutions (height in pixels) whose blocks are followed by self-attention.
        dropout: probability, in [0, 1).
    Raises:
        ConfigurationError: an image that cannot be halved that often, an attention resolution that does not occur.
    Source: kin of DDPM++ (Song et al. 2021, arXiv:2011.13456), but the condition scales as well as shifts, heads have 64
        channels, and the way up has attention after every block. For the published networks see `ddpmpp` and `ncsnpp`.
    """

    sample_dims = 3

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        channels: Annotated[int, Meta(ge=4, le=4096)] = 128,
        multipliers: Annotated[Sequence[Annotated[int, Meta(ge=1, le=64)]], Meta(min_length=1, max_length=12)] = (2, 2, 2),
        blocks: Annotated[int, Meta(ge=1, le=64)] = 4,
        attention: Annotated[Sequence[Count], Meta(max_length=12)] = (16,),
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        planes, height, _ = shape
        levels = len(multipliers)
        self.check(shape, multipliers, attention)
        condition = CONDITION_PER_CHANNEL * channels
        self.conditioning = Conditioning(condition, classes)
        self.enter = nn.Conv2d(planes, channels, 3, padding=1)

        def stage(inward: int, outward: int, level: int, resample: str | None = None, attend: bool | None = None) -> Stage:
            attend = (height >> level) in attention if attend is None else attend
            return Stage(ResidualBlock(inward, outward, condition, resample, dropout), Attention(outward) if attend else None)

        current, skips = channels, [channels]
        self.down = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            if level:
                self.down.append(stage(current, current, level, "down", attend=False))
                skips.append(current)
            for _ in range(blocks):
                self.down.append(stage(current, channels * multiplier, level))
                current = channels * multiplier
                skips.append(current)
        self.middle = nn.ModuleList(
            [stage(current, current, levels - 1, attend=True), stage(current, current, levels - 1, attend=False)]
        )
        self.up = nn.ModuleList()
        self.joins: list[bool] = []  # whether a stage of `up` takes a skip
        for level in reversed(range(levels)):
            if level < levels - 1:
                self.up.append(stage(current, current, level, "up", attend=False))
                self.joins.append(False)
            for _ in range(blocks + 1):
                self.up.append(stage(current + skips.pop(), channels * multipliers[level], level))
                self.joins.append(True)
                current = channels * multipliers[level]
        self.leave = nn.Sequential(group_norm(current), nn.SiLU(), zeroed(nn.Conv2d(current, planes, 3, padding=1)))

    @staticmethod
    def check(
        shape: tuple[int, ...], multipliers: Sequence[int] = (2, 2, 2), attention: Sequence[int] = (16,), **_: Any
    ) -> None:
        """Raise ConfigurationError for images that the options do not fit."""
        height, width = shape[1:]
        halvings = len(multipliers) - 1
        if height % 2**halvings or width % 2**halvings:
            raise ConfigurationError(
                f"images of {height}x{width} cannot be halved {halvings} times", fix="shorten `multipliers` of the network"
            )
        resolutions = [height >> level for level in range(len(multipliers))]
        for resolution in attention:
            if resolution not in resolutions:
                raise ConfigurationError(
                    f"attention at {resolution} pixels, but the resolutions are {resolutions}", fix="`attention` of the network"
                )

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        """x [N, C, H, W], noise_label [N], class_label int64 [N] -> [N, C, H, W]."""
        condition = self.conditioning(noise_label, class_label)
        h = self.enter(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, condition)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, condition)
        for stage, joins in zip(self.up, self.joins, strict=True):
            h = stage(torch.cat([h, skips.pop()], dim=1) if joins else h, condition)
        return self.leave(h)


class Stage(nn.Module):
    """A residual block, and attention after it where the resolution asks for it."""

    def __init__(self, block: nn.Module, attention: Attention | None):
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.block(x, condition)
        return h if self.attention is None else self.attention(h)
