"""How far the law of some samples is from that of data, as a loss: no pairs of noise and sample, and no trained network."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hamflow import draws
from hamflow.errors import ConfigurationError

WIDTH = 64  # channels of a random layer, and coordinates to which it is projected
STRIDES = (1, 2, 2)  # of the layers
PIXELS = 8  # along a side of what is projected, at most


class EnergyDistance(nn.Module):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, zero for equal laws only, in units of E|Y - Y'|; summed over maps of X and Y.

    Of each map it is the squared MMD of the kernel -|x - y|, which `hamflow.metrics.kernel` has in numpy, without gradient.

    The maps of points are the points. Those of images are the pixels, clipped as they are when they are stored, and three
    layers of a convolutional network with random weights, which see edges and strokes.

    Args:
        shape: of a sample, (D,) or (C, H, W). box: (low, high) of a pixel.
    Source: Szekely and Rizzo 2013 for the distance; solvers learned by the quality of samples: arXiv:2202.05830. Random
        layers are a measured choice (theory 6.5).
    """

    def __init__(self, shape: tuple[int, ...], box: tuple[float, float] = (-1.0, 1.0)):
        super().__init__()
        self.box, self.layers = box, len(STRIDES) if len(shape) == 3 else 0
        if self.layers:
            rng, (channels, height, width) = draws.generator(0, "energy", "features"), shape
            for k, stride in enumerate(STRIDES):
                height, width = -(-height // stride), -(-width // stride)
                self._keep(f"kernel{k}", rng, (WIDTH, channels, 3, 3), (2 / (9 * channels)) ** 0.5)
                self._keep(f"shift{k}", rng, (WIDTH,), 0.5 if k == 0 else 0.0)
                inputs = WIDTH * min(height, PIXELS) * min(width, PIXELS)
                self._keep(f"projection{k}", rng, (inputs, WIDTH), inputs**-0.5)
                channels = WIDTH

    def _keep(self, name: str, rng: np.random.Generator, size: tuple[int, ...], scale: float) -> None:
        """A random tensor that no checkpoint holds, as it can be drawn again."""
        drawn = torch.from_numpy(scale * rng.standard_normal(size)).float()
        self.register_buffer(name, drawn, persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """One number a row, [n], whose mean is the distance: without bias but for the unit, which is that of these data.

        Args:
            x: samples. y: data. [n, *shape] each, data units, n > 1.
        Raises:
            ConfigurationError: n is 1.
        """
        if len(x) < 2:
            raise ConfigurationError(
                "the distance of two laws is asked of one sample",
                why="it needs pairs of samples",
                fix="training.microbatch of at least 2, better 64 or more",
            )
        pairs = zip(self.maps(x.float()), self.maps(y.float()), strict=True)
        return torch.stack([self._distance(a, b) for a, b in pairs]).sum(0)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What is compared of samples, [n, d] each: points, or pixels in data units and projections of the layers."""
        if not self.layers:
            return [x]
        x = x.clamp(*self.box)
        maps, state = [x.flatten(1)], x
        for k, stride in enumerate(STRIDES):
            kernel, shift, projection = (self.get_buffer(f"{name}{k}") for name in ("kernel", "shift", "projection"))
            state = functional.conv2d(state, kernel, shift, stride, padding=1).relu()
            size = (min(state.shape[2], PIXELS), min(state.shape[3], PIXELS))
            maps.append(functional.adaptive_avg_pool2d(state, size).flatten(1) @ projection)
        return maps

    @staticmethod
    def _distance(x: Tensor, y: Tensor) -> Tensor:
        across, within, real = _lengths(x, y).mean(1), _lengths(x, x), _lengths(y, y)
        own, unit = real.sum(1) / (len(y) - 1), real.sum() / (len(y) * (len(y) - 1))
        return (2 * across - within.sum(1) / (len(x) - 1) - own) / unit.clamp_min(torch.finfo(unit.dtype).tiny)


def _lengths(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
