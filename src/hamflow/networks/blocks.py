"""The blocks of the U-Net."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of at least 4 channels, 32 groups at most (Karras et al. 2022)."""
    groups = min(32, max(1, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def zeroed(layer: Layer) -> Layer:
    """The layer with all parameters zero, so that the block that it ends begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ResidualBlock(nn.Module):
    """norm, SiLU, convolution, twice, around a skip; the condition scales and shifts the second norm.

    Args:
        channels_in, channels_out: widths.
        condition: width of the conditioning vector.
        resample: "up", "down" or None: nearest-neighbour doubling, or 2x2 mean, of height and width.
        dropout: probability.
    Source: DDPM++ blocks of Song et al. 2021 (arXiv:2011.13456), with the adaptive scale of Karras et al. 2022.
    """

    def __init__(self, channels_in: int, channels_out: int, condition: int, resample: str | None = None, dropout: float = 0.0):
        super().__init__()
        self.resample = {"up": nn.Upsample(scale_factor=2), "down": nn.AvgPool2d(2), None: nn.Identity()}[resample]
        self.norm1, self.norm2 = group_norm(channels_in), group_norm(channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.modulate = nn.Linear(condition, 2 * channels_out)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[N, C, H, W], [N, condition] -> [N, C', H', W']."""
        h = self.conv1(self.resample(nn.functional.silu(self.norm1(x))))
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, dim=1)
        h = nn.functional.silu(torch.addcmul(shift, self.norm2(h), scale + 1))
        h = self.conv2(self.dropout(h))
        return (self.skip(self.resample(x)) + h) * math.sqrt(0.5)  # keeps the variance of two independent summands


class Attention(nn.Module):
    """Self-attention over the pixels, around a skip.

    Args:
        channels: width.
        heads: their number; None: heads of at most 64 channels.
    """

    def __init__(self, channels: int, heads: int | None = None):
        super().__init__()
        self.heads = heads or max(1, channels // 64)
        while channels % self.heads:
            self.heads -= 1
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        n, c, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = nn.functional.scaled_dot_product_attention(q, k, v)
        return (x + self.project(h.transpose(-1, -2).reshape(n, c, height, width))) * math.sqrt(0.5)
