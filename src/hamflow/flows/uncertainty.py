"""A learned weight of the loss at each time, under which every time counts alike."""

import math

import torch
from torch import Tensor, nn

WAVES = 16


class Uncertainty(nn.Module):
    """w(u), a sum of cosines of the uniform number u of the law of times: E[loss e^-w + w] is least at w = ln E[loss | u].

    Source: Karras et al. 2024 (arXiv:2312.02696, eq. 21), there of the noise level; theory 2.14.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waves = nn.Parameter(torch.zeros(WAVES))

    def forward(self, u: Tensor, losses: Tensor) -> Tensor:
        """loss e^-w(u) + w(u), [n], of losses [n] at times of the numbers u in [0, 1], [n]."""
        w = self.of(u).to(losses)
        return losses * (-w).exp() + w

    def of(self, u: Tensor) -> Tensor:
        """w(u), [n]."""
        k = torch.arange(WAVES, dtype=u.dtype, device=u.device)
        return torch.cos(math.pi * k * u[:, None]) @ self.waves.to(u.dtype)
