"""The generator and the discriminator of StyleGAN2-ADA, configuration cifar, in plain torch."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hamflow.networks.equalised import (
    Conv,
    Labels,
    Linear,
    MinibatchDeviation,
    doubled,
    halvings,
    leaky,
    normal,
    normalised,
    smooth,
)

MAPPING_RATE = 0.01  # relative speed of learning of the mapping


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by styles s, [N, inward].

    With W''[o, i] = W[o, i] s_i d_o the demodulation d_o^2 = 1 / sum_i s_i^2 |W[o, i]|^2 makes the variance of the output one
    where the input's is. Scaling the input by s and the output by d around one convolution that all samples share is the same
    as a convolution with weights of each sample's own, in groups.

    Args:
        up: doubles height and width, before a filter. demodulated: d as above; else d = 1.
    Source: Karras et al. 2020 (arXiv:1912.04958), section 2.2, equations 1 to 3.
    """

    def __init__(self, inward: int, outward: int, kernel: int, up: bool = False, demodulated: bool = True):
        super().__init__()
        self.up, self.demodulated = up, demodulated
        self.weight = normal(outward, inward, kernel, kernel)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, inward, H, W] -> [N, outward, H, W], or twice it."""
        x = x * style[:, :, None, None]
        if self.up:
            x = functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = smooth(x, 1, gain=4.0)
        else:
            x = functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        if not self.demodulated:
            return x
        energy = style.square() @ self.weight.square().sum((2, 3)).T
        return x * (energy + 1e-8).rsqrt()[:, :, None, None]


class StyleLayer(nn.Module):
    """Modulated convolution, a noise plane times a learned scalar, bias, `leaky`."""

    def __init__(self, inward: int, outward: int, latent: int, up: bool = False):
        super().__init__()
        self.style = Linear(latent, inward, bias=1.0)
        self.conv = ModulatedConv(inward, outward, 3, up)
        self.strength = nn.Parameter(torch.empty(()).zero_())
        self.bias = nn.Parameter(torch.empty(outward).zero_())

    def forward(self, x: Tensor, w: Tensor, plane: Tensor) -> Tensor:
        """x [N, inward, H, W], w [N, latent], plane [N, 1, H, W] of the output's size."""
        x = self.conv(x, self.style(w)) + self.strength * plane
        return leaky(x + self.bias[:, None, None])


class ToImage(nn.Module):
    """A 1 x 1 modulated convolution to the channels of an image, neither demodulated nor followed by `leaky`."""

    def __init__(self, inward: int, planes: int, latent: int):
        super().__init__()
        self.gain = 1 / math.sqrt(inward)
        self.style = Linear(latent, inward, bias=1.0)
        self.conv = ModulatedConv(inward, planes, 1, demodulated=False)
        self.bias = nn.Parameter(torch.empty(planes).zero_())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, self.gain * self.style(w)) + self.bias[:, None, None]


class Mapping(nn.Module):
    """z, and the class where there is one -> w; `rate` is the relative speed of its learning."""

    def __init__(self, latent: int, classes: int, layers: int, rate: float = MAPPING_RATE):
        super().__init__()
        self.labels = Labels(classes, latent) if classes else None
        widths = [2 * latent if classes else latent] + [latent] * layers
        self.layers = nn.Sequential(*(Linear(a, latent, rate=rate, active=True) for a in widths[:-1]))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """z [N, latent], label int64 [N] -> [N, latent]."""
        z = normalised(z)
        if self.labels is not None:
            z = torch.cat([z, self.labels(_given(label))], 1)
        return self.layers(z)


class StyleGenerator(nn.Module):
    """A latent vector -> an image.

    Args:
        shape: (C, H, W). classes: number of class labels, 0: unconditional.
        latent: dimensions of z and of w. layers: of the mapping. rate: relative speed of its learning.
        base, widest: the width at a resolution of r pixels is base / r, at most `widest`.
    Attributes:
        planes: shapes of the noise planes of one sample, a layer each.
    Source: Karras et al. 2020 (arXiv:1912.04958), figure 2c and "skip" of figure 7; the widths and lengths that are the
        defaults are those of StyleGAN2-ADA's configuration cifar (arXiv:2006.06676).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        latent: int = 512,
        layers: int = 2,
        base: int = 32768,
        widest: int = 512,
        rate: float = MAPPING_RATE,
    ):
        super().__init__()
        channels, sizes = shape[0], _sizes(shape)
        self.latent = latent
        self.mapping = Mapping(latent, classes, layers, rate)
        widths = [_width(size, base, widest) for size in sizes]
        self.constant = normal(widths[0], *sizes[0])
        self.layers, self.images = nn.ModuleList(), nn.ModuleList()
        self.planes: list[tuple[int, ...]] = []
        for level, (size, width) in enumerate(zip(sizes, widths, strict=True)):
            block = [StyleLayer(widths[level - 1], width, latent, up=True)] if level else []
            block.append(StyleLayer(width, width, latent))
            self.layers.append(nn.ModuleList(block))
            self.images.append(ToImage(width, channels, latent))
            self.planes += [(1, *size)] * len(block)

    def forward(self, z: Tensor, label: Tensor | None = None, planes: Sequence[Tensor] = ()) -> Tensor:
        """z [N, latent], label int64 [N], planes as many [N, 1, H, W] as `self.planes` says -> images [N, C, H, W]."""
        w, plane = self.mapping(z, label), iter(planes)
        x, image = self.constant.expand(len(z), -1, -1, -1), None
        for block, to_image in zip(self.layers, self.images, strict=True):
            for layer in block:  # type: ignore[attr-defined]  # a ModuleList
                x = layer(x, w, next(plane))
            now = to_image(x, w)
            image = now if image is None else doubled(image) + now
        assert image is not None
        return image


class StyleDiscriminator(nn.Module):
    """An image -> a logit, positive where it seems real.

    With classes the logit is the inner product of the image's and the class's vectors over sqrt of their length.

    Args:
        shape, classes, base, widest: as of `StyleGenerator`. group: of `MinibatchDeviation`.
        layers: of the mapping of labels.
    Source: as `StyleGenerator`; the architecture without skips.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        layers: int = 8,
        base: int = 32768,
        widest: int = 512,
        group: int = 32,
    ):
        super().__init__()
        sizes = _sizes(shape)[::-1]
        widths = [_width(size, base, widest) for size in sizes]
        convs = [Conv(shape[0], widths[0], 1)]
        for a, b in pairwise(widths):
            convs += [Conv(a, a, 3), Conv(a, b, 3, down=True)]
        last = widths[-1]
        self.convs = nn.Sequential(*convs, MinibatchDeviation(group), Conv(last + 1, last, 3), nn.Flatten())
        self.dense = Linear(last * math.prod(sizes[-1]), last, active=True)
        self.out = Linear(last, last if classes else 1)
        self.labels = LabelVector(classes, last, layers) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """x [N, C, H, W], label int64 [N] -> [N]."""
        x = self.out(self.dense(self.convs(x)))
        return x[:, 0] if self.labels is None else self.labels(x, label)


class LabelVector(nn.Module):
    """The inner product with the vector of a class, over sqrt of its length."""

    def __init__(self, classes: int, width: int, layers: int):
        super().__init__()
        self.gain = 1 / math.sqrt(width)
        mapping = [Linear(width, width, rate=MAPPING_RATE, active=True) for _ in range(layers)]
        self.layers = nn.Sequential(Labels(classes, width), *mapping)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        """x [N, width], label int64 [N] -> [N]."""
        return (x * self.layers(_given(label))).sum(1) * self.gain


class PointGenerator(nn.Module):
    """A latent vector -> a point: the mapping of `StyleGenerator` before layers without styles.

    Args:
        shape: (D,). classes: number of class labels. latent: dimensions of z. width, depth: of the hidden layers.
    """

    planes: tuple[tuple[int, ...], ...] = ()  # no noise planes

    def __init__(self, shape: tuple[int, ...], classes: int = 0, latent: int = 16, width: int = 64, depth: int = 3):
        super().__init__()
        self.latent = latent
        self.labels = Labels(classes, latent) if classes else None
        widths = [2 * latent if classes else latent] + [width] * depth
        hidden = [Linear(a, b, active=True) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*hidden, Linear(widths[-1], shape[0]))

    def forward(self, z: Tensor, label: Tensor | None = None, planes: Sequence[Tensor] = ()) -> Tensor:
        """z [N, latent], label int64 [N] -> points [N, D]."""
        return self.layers(z if self.labels is None else torch.cat([z, self.labels(_given(label))], 1))


class PointDiscriminator(nn.Module):
    """A point -> a logit; arguments as of `PointGenerator`."""

    def __init__(self, shape: tuple[int, ...], classes: int = 0, width: int = 64, depth: int = 3):
        super().__init__()
        widths = [shape[0]] + [width] * depth
        hidden = [Linear(a, b, active=True) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*hidden, Linear(width, width if classes else 1))
        self.labels = LabelVector(classes, width, 1) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """x [N, D], label int64 [N] -> [N]."""
        x = self.layers(x)
        return x[:, 0] if self.labels is None else self.labels(x, label)


def _sizes(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, width) of every resolution, the lowest first."""
    _, height, width = shape
    return [(height >> level, width >> level) for level in reversed(range(halvings(height, width) + 1))]


def _width(size: tuple[int, int], base: int, widest: int) -> int:
    return max(1, min(base // max(size), widest))


def _given(label: Tensor | None) -> Tensor:
    if label is None:
        raise ValueError("class labels must be given exactly when the network is class-conditional")
    return label
