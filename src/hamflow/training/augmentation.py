"""Augmentation that does not leak: images changed at random, and the numbers that tell the network how (theory 4.8)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hamflow.draws import Draw
from hamflow.training.warp import warp

NUMBERS = 9  # that describe how an image was changed; all zero: it was not
STRENGTH = 0.2  # log2 of a typical change of size, and of a typical stretch
SHIFT = 0.125  # standard deviation of a shift, as a fraction of the side


class Transforms(NamedTuple):
    """How each of n images is changed, in this order; zeros leave an image as it is.

    Attributes:
        mirror, flip: 1 where left and right, top and bottom change places, [n].
        scale: w, for a size 2^(.2 w) times as large, [n].
        angle: by which the image turns anticlockwise, radians, [n].
        stretch, axis: w and r, for lengths 2^(.2 w) times as large along an axis and as much smaller across it, and the angle
            from the right to that axis, anticlockwise, radians, [n].
        shift: (right, down), in units of an eighth of the side, [n, 2].
    Source: Karras et al. 2022 (arXiv:2206.00364), appendix F.2, after Karras et al. 2020 (arXiv:2006.06676), appendix B.
    """

    mirror: Tensor
    flip: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    shift: Tensor

    @classmethod
    def drawn(cls, draw: Draw, probability: float) -> "Transforms":
        """Half of the images are mirrored; each other transform is at work in an image with that probability, in [0, 1]."""

        def happens(name: str, chance: float) -> Tensor:
            return (draw.uniform(f"augmentation: {name}") < chance).float()

        def turn(name: str) -> Tensor:
            return (2 * math.pi * (draw.uniform(f"augmentation: {name}") - 0.5)).float()

        stretched = happens("whether stretched", probability)
        return cls(
            mirror=happens("whether mirrored", 0.5),
            flip=happens("whether flipped", probability / 2),
            scale=draw.normal("augmentation: scale", ()) * happens("whether scaled", probability),
            angle=turn("angle") * happens("whether turned", probability),
            stretch=draw.normal("augmentation: stretch", ()) * stretched,
            axis=turn("axis") * happens("whether the axis is turned", 0.5) * stretched,
            shift=draw.normal("augmentation: shift", (2,)) * happens("whether shifted", probability)[:, None],
        )

    def numbers(self) -> Tensor:
        """What the network is told, [n, 9]; continuous in every change, and zero without any."""
        turned = [self.angle.cos() - 1, self.angle.sin()]
        stretched = [self.stretch * self.axis.cos(), self.stretch * self.axis.sin()]
        return torch.stack([self.mirror, self.flip, self.scale, *turned, *stretched, *self.shift.unbind(1)], dim=1)

    def linear(self) -> Tensor:
        """A, [n, 2, 2]: what is to be seen at q, pixels right of and below the middle, stood at A (q - shift).

        Of the inverse changes in their order, A = S(1/s) R(angle) R(-axis) S(1/l, l) R(axis) with R(w) = (cos w, -sin w; sin w,
        cos w), s = 2^(.2 scale), l = 2^(.2 stretch), where the first two commute.
        """
        length = 2 ** (STRENGTH * self.stretch)
        stretch = torch.diag_embed(torch.stack([1 / length, length], dim=1))
        turned = _rotation(self.angle - self.axis) @ stretch @ _rotation(self.axis)
        return turned / (2 ** (STRENGTH * self.scale))[:, None, None]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The images changed, [n, C, H, W], every batch at the same cost and without a wait for the host.

        An image that is neither scaled, turned, stretched nor shifted keeps its values to the bit.
        """
        x = torch.where(_column(self.mirror) > 0, x.flip(3), x)
        x = torch.where(_column(self.flip) > 0, x.flip(2), x)
        height, width = x.shape[2:]
        shift = SHIFT * torch.stack([width * self.shift[:, 0], height * self.shift[:, 1]], dim=1)
        return torch.where(_column((self.numbers()[:, 2:] != 0).any(1)), resampled(x, self.linear(), shift), x)


def resampled(x: Tensor, linear: Tensor, shift: Tensor) -> Tensor:
    """Each image seen through an affine map: at q, pixels from the middle, stands what stood at A (q - shift).

    Args:
        x: [n, C, H, W]. linear: A, [n, 2, 2]. shift: (right, down), pixels, [n, 2].
    Returns: shaped like x, see `hamflow.training.warp.warp`.
    """
    upper = torch.cat([linear, -linear @ shift[:, :, None]], dim=2)
    return warp(x, torch.cat([upper, upper.new_tensor([0.0, 0.0, 1.0]).expand(len(x), 1, 3)], dim=1))


def _rotation(angle: Tensor) -> Tensor:
    rows = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1)
    return rows.view(-1, 2, 2)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
