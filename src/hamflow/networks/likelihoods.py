"""Laws of data around what a decoder gives, each with one learned scale."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn


class Likelihood(Protocol):
    """ln p(x | mean), summed over coordinates."""

    def __call__(self, x: Tensor, mean: Tensor) -> Tensor:
        """[N, *shape] twice, data units -> nats, [N]."""


class Normal(nn.Module):
    """N(mean, scale^2) in every coordinate: a density.

    Args:
        scale: at first, data units.
    Source: one learned scale for all coordinates is the sigma-VAE of Rybkin et al. 2021 (arXiv:2006.13202).
    """

    def __init__(self, scale: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """ln p(x | mean), nats, [N]."""
        z = (x - mean) / self.log_scale.exp()
        return -(z.square() / 2 + self.log_scale + math.log(2 * math.pi) / 2).flatten(1).sum(1)


class DiscretisedLogistic(nn.Module):
    """The mass that a logistic law about the mean gives to each of the evenly spaced values -1, ..., 1.

    The outermost two take the tails, so that the masses of all values have the sum 1.

    Args:
        scale: at first, data units. levels: the number of values.
    Source: Kingma et al. 2016 (arXiv:1606.04934), appendix; Salimans et al. 2017 (arXiv:1701.05517).
    """

    def __init__(self, scale: float, levels: int):
        super().__init__()
        self.levels = levels
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        """ln P(x | mean), nats, [N]; x is rounded to the nearest value."""
        width = 2 / (self.levels - 1)
        centre = (x / width).round() * width if self.levels % 2 else ((x / width - 0.5).round() + 0.5) * width
        scale = self.log_scale.exp()
        below = (centre - width / 2 - mean) / scale  # the cell is [below, above]
        above = below + width / scale
        # with s the logistic function, s(b) - s(a) = s(b) s(-a) (1 - e^{a - b}), which loses no digits in the tails
        within = nn.functional.logsigmoid(above) + nn.functional.logsigmoid(-below) + torch.log(-torch.expm1(-width / scale))
        first, last = centre < width / 2 - 1, centre > 1 - width / 2
        mass = torch.where(first, nn.functional.logsigmoid(above), within)
        return torch.where(last, nn.functional.logsigmoid(-below), mass).flatten(1).sum(1)
