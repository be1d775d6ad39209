"""Exponential moving average of the weights, its half-life in images."""

import copy

import torch
from torch import nn


class ExponentialMovingAverage:
    """A slowly moving copy of a module.

    Args:
        network: the network that is trained.
        halflife: images after which a weight's part has halved; 0: the copy follows at once.
        rampup: the half-life is at most this fraction of the images seen, so that the start is forgotten.
    Source: Karras et al. 2022 (arXiv:2206.00364), appendix F.2.
    """

    def __init__(self, network: nn.Module, halflife: float, rampup: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.halflife, self.rampup = halflife, rampup

    @torch.no_grad()
    def update(self, network: nn.Module, seen: int, batch: int) -> None:
        """After a step on `batch` images, `seen` in total with them."""
        halflife = min(self.halflife, self.rampup * seen)
        keep = 0.5 ** (batch / halflife) if halflife > 0 else 0.0
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - keep)
        for kept, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            kept.copy_(buffer)
