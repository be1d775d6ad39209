"""The score networks DDPM++ and NCSN++ as EDM configures them, to the parameter."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.networks.base import NETWORKS
from hamflow.networks.blocks import Attention, group_norm
from hamflow.networks.embeddings import FourierEmbedding, PositionalEmbedding
from hamflow.networks.unet import CONDITION_PER_CHANNEL, Stage, UNet
from hamflow.registry import Count, Fraction
from hamflow.training.augmentation import NUMBERS as AUGMENTATION_LABELS

SMALL = 1e-5  # gain of the last layer of each block at the start, so that the block begins as its skip
HALF = math.sqrt(0.5)  # keeps the variance of the sum of two independent summands


class Resample(nn.Module):
    """Doubling or halving of height and width through a separable filter: [1, 1] is nearest neighbour and 2x2 mean.

    Args:
        way: "up" or "down". taps: of the filter in one direction, an even number. padded: whether borders are filled by zeros.
    """

    kernel: Tensor

    def __init__(self, way: str, taps: Sequence[int], padded: bool = True):
        super().__init__()
        self.way, self.padding = way, (len(taps) - 1) // 2 if padded else 0
        line = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("kernel", 4 * kernel if way == "up" else kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W] or [N, C, H/2, W/2]."""
        if self.kernel.shape == (2, 2):  # the same, several times faster than a convolution a channel
            return nn.functional.avg_pool2d(x, 2) if self.way == "down" else nn.functional.interpolate(x, scale_factor=2.0)
        channels = x.shape[1]
        move = nn.functional.conv_transpose2d if self.way == "up" else nn.functional.conv2d
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return move(x, kernel, stride=2, padding=self.padding, groups=channels)


class AdditiveBlock(nn.Module):
    """norm, SiLU, convolution, twice, around a skip; the condition is added before the second norm.

    Args:
        channels_in, channels_out: widths. condition: width of the conditioning vector.
        resample: "up", "down" or None. taps: of the resampling filter. dropout: probability.
    Source: the residual block of Song et al. 2021 (arXiv:2011.13456); its skip is a 1x1 convolution wherever the block changes
        the width or the resolution.
    """

    def __init__(
        self, channels_in: int, channels_out: int, condition: int, resample: str | None, taps: Sequence[int], dropout: float
    ):
        super().__init__()
        self.resample = Resample(resample, taps) if resample else nn.Identity()
        self.norm1, self.norm2 = group_norm(channels_in), group_norm(channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shift = nn.Linear(condition, channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if resample or channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """[N, C, H, W], [N, condition] -> [N, C', H', W']."""
        h = self.conv1(self.resample(nn.functional.silu(self.norm1(x))))
        h = nn.functional.silu(self.norm2(h + self.shift(condition)[:, :, None, None]))
        return (self.skip(self.resample(x)) + self.conv2(self.dropout(h))) * HALF


class Mapping(nn.Module):
    """The conditioning vector of a noise label, a class and the numbers of an augmentation.

    Args:
        noise: embedding of the noise label. features: its width. channels: width of the vector.
        classes: number of classes, 0: unconditional. augmented: whether the numbers of an augmentation are taken.
    """

    def __init__(self, noise: nn.Module, features: int, channels: int, classes: int, augmented: bool):
        super().__init__()
        self.noise, self.classes = noise, classes
        self.label = nn.Linear(classes, features) if classes else None
        self.augmentation = nn.Linear(AUGMENTATION_LABELS, features, bias=False) if augmented else None
        self.layers = nn.Sequential(nn.Linear(features, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())

    def forward(self, noise_label: Tensor, class_label: Tensor | None, augmentation: Tensor | None) -> Tensor:
        """[N], int64 [N] (-1: no class), [N, 9] -> [N, channels]. Raises ValueError if labels are missing or not wanted."""
        if (class_label is None) == bool(self.classes):
            raise ValueError("class labels must be given exactly when the network is class-conditional")
        if augmentation is not None and self.augmentation is None:
            raise ValueError("the network takes no numbers of an augmentation")
        embedding = self.noise(noise_label)
        if self.label is not None and class_label is not None:
            one_hot = class_label[:, None] == torch.arange(self.classes, device=class_label.device)
            embedding = embedding + self.label(one_hot.to(embedding.dtype) * math.sqrt(self.classes))
        if self.augmentation is not None and augmentation is not None:  # zeros, an untouched image, add nothing
            embedding = embedding + self.augmentation(augmentation.to(embedding.dtype))
        return self.layers(embedding)


class SongUNet(nn.Module):
    """Images at unit spread and a noise label -> a field of the same shape.

    Args:
        shape: (C, H, W); H and W divisible by 2^(number of resolutions - 1).
        classes: number of class labels, 0: unconditional.
        channels: width at full resolution.
        multipliers: width of each resolution as a multiple of `channels`.
        blocks: residual blocks a resolution on the way down; one more on the way up.
        attention: resolutions (height in pixels) with self-attention of one head: after every block on the way down, after the
            last on the way up. The middle has it at every resolution.
        dropout: probability, in [0, 1).
        augmentation: whether the network is told how its image was augmented, by 9 numbers.
    Raises:
        ConfigurationError: an image that cannot be halved that often, an attention resolution that does not occur.
    Source: Song et al. 2021 (arXiv:2011.13456) as configured by Karras et al. 2022 (arXiv:2206.00364, appendix F).
    """

    sample_dims = 3
    taps: ClassVar[tuple[int, ...]]  # of the resampling filter
    noise_width: ClassVar[int]  # features of the noise label as a multiple of `channels`
    embedding: ClassVar[type[nn.Module]]  # of the noise label
    residual: ClassVar[bool]  # whether the image enters again at each resolution of the way down
    check = staticmethod(UNet.check)

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        channels: Annotated[int, Meta(ge=4, le=4096, multiple_of=4)] = 128,
        multipliers: Annotated[Sequence[Annotated[int, Meta(ge=1, le=64)]], Meta(min_length=1, max_length=12)] = (2, 2, 2),
        blocks: Annotated[int, Meta(ge=1, le=64)] = 4,
        attention: Annotated[Sequence[Count], Meta(max_length=12)] = (16,),
        dropout: Fraction = 0.0,
        augmentation: bool = False,
    ):
        super().__init__()
        self.check(shape, multipliers, attention)
        planes, height, _ = shape
        levels, width = len(multipliers), CONDITION_PER_CHANNEL * channels
        features = self.noise_width * channels
        self.augmented = augmentation
        self.conditioning = Mapping(self.embedding(features), features, width, classes, augmentation)

        def stage(inward: int, outward: int, resample: str | None = None, attend: bool = False) -> Stage:
            block = AdditiveBlock(inward, outward, width, resample, self.taps, dropout)
            return Stage(block, Attention(outward, heads=1) if attend else None)

        self.enter = nn.Conv2d(planes, channels, 3, padding=1)
        current, skips, image = channels, [channels], planes
        self.down, self.again = nn.ModuleList(), nn.ModuleDict()
        for level, multiplier in enumerate(multipliers):
            if level:
                if self.residual:  # by the number of the stage that it joins; zeros around the image: the filter needs none
                    again = nn.Sequential(nn.Conv2d(image, current, 3, padding=2), Resample("down", self.taps, padded=False))
                    self.again[str(len(self.down))], image = again, current
                self.down.append(stage(current, current, "down"))
                skips.append(current)
            for _ in range(blocks):
                self.down.append(stage(current, channels * multiplier, attend=height >> level in attention))
                current = channels * multiplier
                skips.append(current)
        self.middle = nn.ModuleList([stage(current, current, attend=True), stage(current, current)])
        self.up = nn.ModuleList()
        self.joins: list[bool] = []  # whether a stage of `up` takes a skip
        for level in reversed(range(levels)):
            if level < levels - 1:
                self.up.append(stage(current, current, "up"))
                self.joins.append(False)
            for block in range(blocks + 1):
                attend = block == blocks and height >> level in attention
                self.up.append(stage(current + skips.pop(), channels * multipliers[level], attend=attend))
                self.joins.append(True)
                current = channels * multipliers[level]
        last = nn.Conv2d(current, planes, 3, padding=1)
        self.leave = nn.Sequential(group_norm(current), nn.SiLU(), last)
        self._initialise(last)

    def _initialise(self, last: nn.Conv2d) -> None:
        """Xavier's uniform law and no bias; what ends a block or the network begins near zero, attention a little below."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            last.weight.mul_(SMALL)
            for module in self.modules():
                if isinstance(module, AdditiveBlock):
                    module.conv2.weight.mul_(SMALL)
                elif isinstance(module, Attention):
                    module.project.weight.mul_(SMALL)
                    module.qkv.weight.mul_(math.sqrt(0.2))

    def forward(
        self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Tensor:
        """x [N, C, H, W], noise_label [N], class_label int64 [N] (-1: no class), augmentation [N, 9] -> [N, C, H, W]."""
        condition = self.conditioning(noise_label, class_label, augmentation)
        h, image = self.enter(x), x
        skips = [h]
        for number, stage in enumerate(self.down):
            h = stage(h, condition)
            if str(number) in self.again:
                h = image = (h + self.again[str(number)](image)) * HALF
            skips.append(h)
        for stage in self.middle:
            h = stage(h, condition)
        for stage, joins in zip(self.up, self.joins, strict=True):
            h = stage(torch.cat([h, skips.pop()], dim=1) if joins else h, condition)
        return self.leave(h)


@NETWORKS.register("ddpmpp")
class DDPMpp(SongUNet):
    """DDPM++: waves of the noise label at fixed frequencies, 2x2 means. The network of VP-SDE, and of EDM on FFHQ."""

    taps, noise_width, embedding, residual = (1, 1), 1, PositionalEmbedding, False


@NETWORKS.register("ncsnpp")
class NCSNpp(SongUNet):
    """NCSN++: waves at random frequencies, a wider filter, the image again at each resolution. The network of VE-SDE."""

    taps, noise_width, embedding, residual = (1, 3, 3, 1), 2, FourierEmbedding, True
