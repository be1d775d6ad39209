"""Adaptive discriminator augmentation: what the discriminator sees is changed at random, with a probability that adapts."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from hamflow.draws import Draw
from hamflow.training.warp import warp

Pipe = Literal["none", "b", "bg", "bgc"]  # pixel blitting, general geometry, colour

SCALE, STRETCH, SHIFT = 0.2, 0.2, 0.125  # spreads: log2 of sizes, log2 of the ratio of axes, part of the side
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # spreads: data units, log2, log2
GREY = torch.full((3,), 1 / math.sqrt(3))  # the direction of colours without hue


def augment(x: Tensor, draw: Draw, prefix: str, p: Tensor, pipe: Pipe) -> Tensor:
    """Images, each of whose transforms is active with probability p, independently.

    The geometric ones are composed to one affine map, the colour ones to another, each of which is applied once.

    Args:
        x: [N, C, H, W], data units; C = 3, or 1: then colours are means over three equal channels, and there is no hue.
        draw, prefix: of random numbers; every name begins with the prefix.
        p: scalar tensor >= 0; 1 and more: always.
        pipe: b, blitting; bg, geometry also; bgc, colour also; none: x itself.
    Source: Karras et al. 2020 (arXiv:2006.06676), appendix B; theory 11.3.
    """
    if pipe == "none":
        return x
    names = [*BLITTING, *(GEOMETRY if "g" in pipe else ())]
    inverse = torch.eye(3, device=x.device).expand(len(x), 3, 3)
    for name in names:
        inverse = inverse @ drawn(name, x.shape[2:], draw, prefix, p, x.device)
    x = warp(x, inverse)
    if "c" not in pipe:
        return x
    colour = torch.eye(4, device=x.device).expand(len(x), 4, 4)
    for name in COLOUR if x.shape[1] == 3 else GREYS:
        colour = drawn(name, x.shape[2:], draw, prefix, p, x.device) @ colour
    return recolour(x, colour)


def drawn(name: str, size: tuple[int, ...], draw: Draw, prefix: str, p: Tensor, device: torch.device) -> Tensor:
    """Matrices of a transform, [N, 3, 3] or [N, 4, 4]: of each sample that of its own numbers, or the identity.

    Args:
        size: (H, W) of the images.
    """
    chance = p.clamp(max=1)
    if name in HALVED:  # two of them: one of the two is active with probability p
        chance = 1 - (1 - chance).sqrt()
    active = (draw.uniform(f"{prefix}.{name}.active").to(device) < chance)[:, None, None]
    matrix = TRANSFORMS[name](draw, f"{prefix}.{name}", size).float().to(device)
    return torch.where(active, matrix, torch.eye(matrix.shape[-1], device=device))


def recolour(x: Tensor, matrix: Tensor) -> Tensor:
    """Images [N, C, H, W], C = 3 or 1, under affine maps of their colours, [N, 4, 4]."""
    linear, offset = matrix[:, :3, :3], matrix[:, :3, 3:]
    if x.shape[1] == 1:  # grey: three equal channels, then their mean
        linear, offset = linear.sum((1, 2), keepdim=True) / 3, offset.mean(1, keepdim=True)
    return (linear.to(x) @ x.flatten(2) + offset.to(x)).view_as(x)


def _affine(a: Tensor, b: Tensor, c: Tensor, d: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[[a, b, x], [c, d, y], [0, 0, 1]], [N, 3, 3]."""
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, b, x, c, d, y, zero, zero, one], 1).view(-1, 3, 3)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _affine(1 / x, zero, zero, 1 / y, zero, zero)


def _turn(angle: Tensor) -> Tensor:
    zero, cos, sin = torch.zeros_like(angle), angle.cos(), angle.sin()
    return _affine(cos, sin, -sin, cos, zero, zero)


def _move(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _affine(one, zero, zero, one, -x, -y)


def _normal(draw: Draw, name: str, count: int = 1) -> tuple[Tensor, ...]:
    return tuple(draw.normal(name, (count,)).double().unbind(1))


def _power(draw: Draw, name: str, spread: float) -> Tensor:
    """2^(spread n), n normal."""
    return torch.exp2(spread * _normal(draw, name)[0])


def _angle(draw: Draw, name: str) -> Tensor:
    """Uniform on (-pi, pi)."""
    return math.pi * (2 * draw.uniform(f"{name}.angle") - 1)


def flip(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """Left and right exchanged, of half the samples."""
    sign = 1 - 2 * (2 * draw.uniform(f"{name}.side")).floor()
    return _scale(sign, torch.ones_like(sign))


def quarter(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """A turn by 0, 1, 2 or 3 right angles."""
    return _turn(math.pi / 2 * (4 * draw.uniform(f"{name}.turns")).floor())


def hop(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """A shift by whole pixels, up to an eighth of the side either way."""
    height, width = size
    x, y = (2 * draw.uniform(f"{name}.{axis}") - 1 for axis in "xy")
    return _move((SHIFT * width * x).round(), (SHIFT * height * y).round())


def scale(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """Larger or smaller in all directions."""
    factor = _power(draw, name, SCALE)
    return _scale(factor, factor)


def rotate(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """Any angle."""
    return _turn(_angle(draw, name))


def stretch(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """Wider and flatter, or narrower and taller."""
    factor = _power(draw, name, STRETCH)
    return _scale(factor, 1 / factor)


def shift(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """A shift by normal numbers, their spread an eighth of the side."""
    height, width = size
    x, y = _normal(draw, name, 2)
    return _move(SHIFT * width * x, SHIFT * height * y)


def _colour(linear: Tensor, offset: Tensor) -> Tensor:
    """[[linear, offset], [0, 1]], [N, 4, 4], of [N, 3, 3] and [N]."""
    top = torch.cat([linear, offset[:, None, None].expand(-1, 3, 1)], 2)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(top).expand(len(top), 1, 4)
    return torch.cat([top, bottom], 1)


def _linear(draw_count: Tensor, matrix: Tensor) -> Tensor:
    return _colour(matrix, torch.zeros_like(draw_count))


def _projections(like: Tensor) -> tuple[Tensor, Tensor]:
    """(v v', I - v v') of the grey direction v."""
    grey = torch.outer(GREY, GREY).to(like)
    return grey, torch.eye(3).to(like) - grey


def brightness(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """A number added to all channels."""
    offset = BRIGHTNESS * _normal(draw, name)[0]
    return _colour(torch.eye(3).to(offset).expand(len(offset), 3, 3), offset)


def contrast(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """All channels times a number."""
    factor = _power(draw, name, CONTRAST)
    return _linear(factor, factor[:, None, None] * torch.eye(3).to(factor))


def luma(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """The grey part with the opposite sign, of half the samples: I - 2 v v'."""
    flipped = (2 * draw.uniform(f"{name}.side")).floor()
    grey, _ = _projections(flipped)
    return _linear(flipped, torch.eye(3).to(grey) - 2 * flipped[:, None, None] * grey)


def hue(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """Colours turned about the grey direction by any angle (Rodrigues' formula)."""
    angle = _angle(draw, name)
    grey, rest = _projections(angle)
    x = float(GREY[0])
    cross = torch.tensor([[0.0, -x, x], [x, 0.0, -x], [-x, x, 0.0]]).to(angle)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _linear(angle, grey + cos * rest + sin * cross)


def saturation(draw: Draw, name: str, size: tuple[int, ...]) -> Tensor:
    """The part beside grey times a number."""
    factor = _power(draw, name, SATURATION)
    grey, rest = _projections(factor)
    return _linear(factor, grey + factor[:, None, None] * rest)


BLITTING = ("flip", "quarter", "hop")  # in the order in which an image undergoes them
GEOMETRY = ("scale", "rotate_before", "stretch", "rotate_after", "shift")
GREYS = ("brightness", "contrast", "luma")
COLOUR = (*GREYS, "hue", "saturation")
HALVED = {"rotate_before", "rotate_after"}
TRANSFORMS: dict[str, Callable[[Draw, str, tuple[int, ...]], Tensor]] = {
    **{one.__name__: one for one in (flip, quarter, hop, scale, stretch, shift)},
    **{one.__name__: one for one in (brightness, contrast, luma, hue, saturation)},
    "rotate_before": rotate,
    "rotate_after": rotate,
}
