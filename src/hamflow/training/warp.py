"""Affine warps of images that neither blur nor alias, differentiable as often as one likes."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

# The scaling filter of the wavelet sym6, the least asymmetric of Daubechies 1992 ("Ten Lectures on Wavelets", chapter 6) with 6
# vanishing moments. It is orthonormal to its own shifts by 2, so that doubling and halving with it give an image back.
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
MARGIN = 3  # pixels around the image that its own pixels depend on: a quarter of the filter
SMALLEST = MARGIN + 1  # pixels a side of an image whose mirror image fills the margin
CENTRE = 5  # the filter's largest tap
SHIFT = -0.5  # it stands half a fine pixel before the filter's middle


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """Images moved by affine maps: up by the wavelet, bilinear there, and down again, which undoes the first exactly.

    Beyond its edges an image goes on as its mirror image, by one image at most. Nothing here depends on values of `inverse`
    but the weights of the interpolation, so no step waits for the host. The bilinear gather is written out, for the gradient
    of torch's `grid_sample` cannot itself be differentiated.

    Args:
        x: [N, C, H, W]; H, W >= `SMALLEST`.
        inverse: [N, 3, 3], from a pixel of the result to the place in x that it shows, homogeneous (x, y, 1), in pixels from
            the middle of the image, y downwards.
    Returns:
        Like x.
    Source: Karras et al. 2020 (arXiv:2006.06676), appendix B.
    """
    height, width = x.shape[2:]
    (up, down), (up_across, down_across) = (_resampling(side, x.dtype, x.device) for side in (height, width))
    fine = up @ x @ up_across.T
    grid = _grid(down.shape[1], down_across.shape[1]).to(x)
    scale = torch.tensor([2.0, 2.0, 1.0]).to(x)
    inverse = scale[:, None] * inverse.to(x) / scale  # in fine pixels
    place = (inverse @ (grid - torch.tensor([SHIFT, SHIFT, 0.0]).to(x)).T)[:, :2] + SHIFT
    moved = bilinear(fine, place).view(*x.shape[:2], down.shape[1], down_across.shape[1])
    return down @ moved @ down_across.T


def bilinear(x: Tensor, place: Tensor) -> Tensor:
    """Values of images between their pixels, zero outside; linear in x.

    Args:
        x: [N, C, H, W]. place: [N, 2, K], (x, y) in pixels from the middle.
    Returns:
        [N, C, K].
    """
    height, width = x.shape[2:]
    if not torch.is_grad_enabled():  # torch's own kernel is several times faster, but its gradient has none
        ends = place.new_tensor([2 / (width - 1), 2 / (height - 1)])
        grid = (place.transpose(1, 2) * ends)[:, None]
        return functional.grid_sample(x, grid, align_corners=True)[:, :, 0]
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


@cache
def _resampling(count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(up, down): a line of pixels with its mirror images -> fine pixels, and fine pixels of the line and its margin -> pixels.

    Fine pixel n has the part h[n - 2 i] of the i-th pixel, h the wavelet, which is orthonormal to its shifts by 2.
    """
    source = torch.arange(1 - count, 2 * count - 1)
    mirrored = (source.abs() - 2 * (source.abs() - (count - 1)).clamp(min=0)).tolist()  # the pixel that stands there
    up, down = (
        torch.zeros(*s, dtype=torch.float64)
        for s in ((2 * len(mirrored) + 2 * CENTRE, count), (count, 2 * (count + 2 * MARGIN)))
    )
    for tap, value in enumerate(SYM6):
        for i, pixel in enumerate(mirrored):
            up[2 * i + tap, pixel] += value
        for pixel in range(count):
            down[pixel, 2 * (pixel + MARGIN) + tap - CENTRE] = value
    return up.to(device, dtype), down.to(device, dtype)
