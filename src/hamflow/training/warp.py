"""Affine warps of images that neither blur nor alias, differentiable as often as one likes."""

import torch
from torch import Tensor
from torch.nn import functional

SYM6 = (  # Daubechies' least asymmetric wavelet with six vanishing moments, its low-pass filter of decomposition
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
MARGIN = 3  # pixels around the image that its own pixels depend on: a quarter of the filter
SHIFT = -0.5  # the filter's largest tap stands half a fine pixel before its middle


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """Images moved by affine maps: up by the wavelet, bilinear there, and down again, which undoes the first exactly.

    Beyond its edges an image goes on as its mirror image, by one image at most. Nothing here depends on values of `inverse`
    but the weights of the interpolation, so no step waits for the host. The bilinear gather is written out, for the gradient
    of torch's `grid_sample` cannot itself be differentiated.

    Args:
        x: [N, C, H, W]. inverse: [N, 3, 3], from a pixel of the result to the place in x that it shows, homogeneous (x, y, 1),
            in pixels from the middle of the image, y downwards.
    Returns:
        Like x.
    Source: Karras et al. 2020 (arXiv:2006.06676), appendix B.
    """
    height, width = x.shape[2:]
    mirrored = functional.pad(x, (width - 1, width - 1, height - 1, height - 1), mode="reflect")
    fine = _up(_up(mirrored, 2), 3)
    grid = _grid(2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN)).to(x)
    scale = torch.tensor([2.0, 2.0, 1.0]).to(x)
    doubled = scale[:, None] * inverse.to(x) / scale  # in fine pixels
    place = (doubled @ (grid - torch.tensor([SHIFT, SHIFT, 0.0]).to(x)).T)[:, :2] + SHIFT
    moved = bilinear(fine, place).view(*x.shape[:2], 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN))
    return _down(_down(moved, 2), 3)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def bilinear(x: Tensor, place: Tensor) -> Tensor:
    """Values of images between their pixels, zero outside: a gather, linear in x.

    Args:
        x: [N, C, H, W]. place: [N, 2, K], (x, y) in pixels from the middle.
    Returns:
        [N, C, K].
    """
    height, width = x.shape[2:]
    column, row = place[:, 0] + (width - 1) / 2, place[:, 1] + (height - 1) / 2
    left, top = column.floor(), row.floor()
    flat, total = x.flatten(2), torch.zeros(())
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at_row, at_column = top + i, left + j
        weight = (1 - (row - at_row).abs()) * (1 - (column - at_column).abs())
        inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
        index = at_row.clamp(0, height - 1).long() * width + at_column.clamp(0, width - 1).long()
        values = flat.gather(2, index[:, None].expand(-1, x.shape[1], -1))
        total = values * (weight * inside)[:, None] + total.to(x)
    return total


def _grid(height: int, width: int) -> Tensor:
    """Pixels as (x, y, 1) from the middle, [H W, 3]."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(height * width)], 1)


def _up(x: Tensor, dim: int) -> Tensor:
    """Twice as many pixels along a dimension, 2 or 3: zeros between them, then the wavelet."""
    planes, kernel, along = _prepared(x, dim)
    found = functional.conv_transpose2d(planes, kernel, stride=_along(2, 1, dim), padding=along)
    return found.view(*x.shape[:2], *found.shape[2:])


def _down(x: Tensor, dim: int) -> Tensor:
    """Half as many pixels along a dimension: the transpose of `_up`, and its inverse from the left."""
    planes, kernel, along = _prepared(x, dim)
    found = functional.conv2d(planes, kernel, stride=_along(2, 1, dim), padding=along)
    return found.view(*x.shape[:2], *found.shape[2:])


def _prepared(x: Tensor, dim: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    kernel = torch.tensor(SYM6).to(x).view(1, 1, *_along(len(SYM6), 1, dim))
    return x.reshape(-1, 1, *x.shape[2:]), kernel, _along(len(SYM6) // 2 - 1, 0, dim)


def _along(value: int, other: int, dim: int) -> tuple[int, int]:
    return (value, other) if dim == 2 else (other, value)
