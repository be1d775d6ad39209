"""Layers with an equalised learning rate, and resampling by a short filter: the parts of StyleGAN's networks."""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of the leaky ReLU where its argument is negative
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the filter of resampling, along each axis


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU times sqrt 2, which keeps the variance of normal arguments within 4%."""
    return functional.leaky_relu(x, SLOPE) * math.sqrt(2)


def normalised(x: Tensor) -> Tensor:
    """Rows [N, C] of unit mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def normal(*shape: int, deviation: float = 1.0) -> nn.Parameter:
    """Initial weights N(0, deviation^2)."""
    return nn.Parameter(torch.empty(*shape).normal_(std=deviation))


class Linear(nn.Module):
    """y = g W x + r b with W ~ N(0, 1/r^2) and g = r/sqrt(inward): Adam moves every layer equally fast.

    Args:
        bias: value of r b at the start. rate: r, relative speed of learning. active: followed by `leaky`.
    Source: Karras et al. 2018 (arXiv:1710.10196), section 4.1.
    """

    def __init__(self, inward: int, outward: int, bias: float = 0.0, rate: float = 1.0, active: bool = False):
        super().__init__()
        self.rate, self.gain, self.active = rate, rate / math.sqrt(inward), active
        self.weight = normal(outward, inward, deviation=1 / rate)
        self.bias = nn.Parameter(torch.empty(outward).fill_(bias / rate))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inward] -> [N, outward]."""
        x = functional.linear(x, self.gain * self.weight, self.rate * self.bias)
        return leaky(x) if self.active else x


class Conv(nn.Module):
    """A convolution with equalised learning rate, followed by `leaky`; `down` halves height and width behind a filter."""

    def __init__(self, inward: int, outward: int, kernel: int, down: bool = False):
        super().__init__()
        self.gain, self.kernel, self.down = 1 / math.sqrt(inward * kernel**2), kernel, down
        self.weight = normal(outward, inward, kernel, kernel)
        self.bias = nn.Parameter(torch.empty(outward).zero_())

    def forward(self, x: Tensor) -> Tensor:
        """[N, inward, H, W] -> [N, outward, H, W], or half of it."""
        if self.down:
            x = smooth(x, self.kernel // 2 + 1)
        stride, padding = (2, 0) if self.down else (1, self.kernel // 2)
        return leaky(functional.conv2d(x, self.gain * self.weight, self.bias, stride, padding))


class Labels(nn.Module):
    """A class as a vector of unit mean square: a linear map of its one-hot code, normalised."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.classes, self.layer = classes, Linear(classes, width)

    def forward(self, label: Tensor) -> Tensor:
        """int64 [N] -> [N, width]."""
        one_hot = functional.one_hot(label, self.classes).to(self.layer.weight.dtype)
        return normalised(self.layer(one_hot))


class MinibatchDeviation(nn.Module):
    """One more channel: how much the samples of a group differ, the mean over c, h, w of their standard deviation.

    Sample i of N belongs to group i modulo N/group. Where `group` does not divide N, their greatest common divisor is taken.
    Then processes that share a batch have the same groups as one, if the group divides their rows.
    Source: Karras et al. 2018 (arXiv:1710.10196), section 3.
    """

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C + 1, H, W]."""
        group = math.gcd(len(x), self.group)
        grouped = x.reshape(group, -1, *x.shape[1:])
        deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
        plane = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, plane], 1)


def smooth(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Each channel of [N, C, H, W] through the filter, zeros around it."""
    down, across = (_filter(side, padding, 1, x.dtype, x.device) for side in x.shape[2:])
    return gain * (down @ (x @ across.T))


def doubled(x: Tensor) -> Tensor:
    """Each channel of [N, C, H, W] at twice the resolution: zeros between the pixels, then the filter."""
    down, across = (_filter(side, 1, 2, x.dtype, x.device) for side in x.shape[2:])
    return down @ (x @ across.T)


@cache
def _filter(side: int, padding: int, up: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter along one axis as a matrix, [.., side]: of few pixels it is several times as fast as a convolution.

    Args:
        padding: zeros at both ends. up: 2 doubles the resolution, 1 leaves it.
    """
    taps = torch.tensor([[TAPS]], dtype=dtype, device=device) / sum(TAPS)
    lines = torch.eye(side, dtype=dtype, device=device)[:, None]
    found = (
        functional.conv_transpose1d(lines, up * taps, stride=2, padding=padding)
        if up == 2
        else functional.conv1d(lines, taps, padding=padding)
    )
    return found[:, 0].T.contiguous()


def halvings(height: int, width: int) -> int:
    """How often an image can be halved while neither side falls below 4."""
    count = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 8:
        height, width, count = height // 2, width // 2, count + 1
    return count
