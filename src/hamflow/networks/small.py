"""The cheapest network for smooth fields of few dimensions."""

from itertools import pairwise
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.errors import ConfigurationError
from hamflow.networks.base import NETWORKS


@NETWORKS.register("small")
class Small(nn.Module):
    """A multilayer perceptron of [x, label] without position or time features.

    Args:
        shape: (D,).
        classes: must be 0: it takes no class labels.
        width: of the hidden layers.
        depth: hidden layers.
    """

    sample_dims = 1

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        width: Annotated[int, Meta(ge=1, le=65536)] = 128,
        depth: Annotated[int, Meta(ge=0, le=1024)] = 3,
    ):
        super().__init__()
        if classes:
            raise ConfigurationError("network 'small' takes no class labels", fix="mlp")
        sizes = [shape[0] + 1, *[width] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU()]
        # The last layer is not set to zero: with it at zero the others see no gradient at first, which Adam's long memory of
        # squared gradients punishes for a thousand steps (min-max error .30 against .16 after 1000 updates).
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], shape[0]))

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        """x [N, D], noise_label [N] or [1] -> [N, D]."""
        return self.layers(torch.cat([x, noise_label.to(x).expand(len(x))[:, None]], dim=1))
