"""A residual multilayer perceptron for points."""

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow.networks.base import NETWORKS
from hamflow.networks.embeddings import Conditioning, neumann_features

HALF_WIDTH = math.sqrt(3)  # of the uniform law with unit variance: a box seen at unit spread is [-sqrt 3, sqrt 3]


@NETWORKS.register("mlp")
class MLP(nn.Module):
    """Points at unit spread and a noise label -> a vector field.

    Args:
        shape: (D,).
        classes: number of class labels, 0: unconditional.
        width: of the hidden layers.
        depth: hidden layers, each conditioned by a shift and joined by a skip.
        features: highest frequency of the Neumann features of the position; 0: none.
    """

    sample_dims = 1

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        width: Annotated[int, Meta(ge=2, le=65536, multiple_of=2)] = 128,  # half of the noise embedding is sines, half cosines
        depth: Annotated[int, Meta(ge=1, le=1024)] = 3,
        features: Annotated[int, Meta(ge=0, le=1024)] = 8,
    ):
        super().__init__()
        (dimension,) = shape
        self.features = features
        self.conditioning = Conditioning(width, classes)
        self.enter = nn.Linear(dimension * (1 + 2 * features), width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.shifts = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, dimension)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, noise_label: Tensor, class_label: Tensor | None = None) -> Tensor:
        """x [N, D], noise_label [N], class_label int64 [N] -> [N, D]."""
        condition = self.conditioning(noise_label, class_label)
        if self.features:
            x = torch.cat([x, neumann_features(x, self.features, HALF_WIDTH)], dim=1)
        h = self.enter(x)
        for layer, shift in zip(self.hidden, self.shifts, strict=True):
            h = h + layer(nn.functional.silu(h + shift(condition)))
        return self.leave(nn.functional.silu(h))
