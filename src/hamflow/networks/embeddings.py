"""How time and class enter a network, and position features for points."""

import math

import torch
from torch import Tensor, nn


class NoiseEmbedding(nn.Module):
    """Sines and cosines of the noise label at geometrically spaced frequencies.

    Args:
        channels: number of features, even.
        highest: the highest angular frequency; the label ln(sigma)/4 spans about 2.7, so 100 tells apart a factor 1.1 of sigma.
    """

    frequencies: Tensor

    def __init__(self, channels: int, highest: float = 100.0):
        super().__init__()
        exponents = torch.linspace(0, math.log(highest), channels // 2, dtype=torch.float64)
        self.register_buffer("frequencies", exponents.exp().float(), persistent=False)

    def forward(self, noise_label: Tensor) -> Tensor:
        """[N] -> [N, channels]."""
        angles = noise_label[:, None] * self.frequencies.to(noise_label.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionalEmbedding(nn.Module):
    """Sines and cosines of the noise label at angular frequencies from 1 down to 1/10000.

    Args:
        channels: number of features, even, at least 4.
    Source: Ho et al. 2020 (arXiv:2006.11239), made for labels from 0 to 1000; DDPM++.
    """

    frequencies: Tensor

    def __init__(self, channels: int):
        super().__init__()
        exponents = torch.linspace(0, 1, channels // 2, dtype=torch.float64)
        self.register_buffer("frequencies", (1e-4**exponents).float(), persistent=False)

    def forward(self, noise_label: Tensor) -> Tensor:
        """[N] -> [N, channels]."""
        angles = noise_label[:, None] * self.frequencies.to(noise_label.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sines and cosines of the noise label at random frequencies 2 pi N(0, scale^2), which stay as they were drawn.

    Args:
        channels: number of features, even. scale: standard deviation of the frequencies, cycles per unit of the label.
    Source: Tancik et al. 2020 (arXiv:2006.10739), as NCSN++ uses it.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0):
        super().__init__()
        self.register_buffer("frequencies", nn.init.normal_(torch.empty(channels // 2), std=2 * math.pi * scale))

    def forward(self, noise_label: Tensor) -> Tensor:
        """[N] -> [N, channels]."""
        angles = noise_label[:, None] * self.frequencies.to(noise_label.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Conditioning(nn.Module):
    """The vector that tells every layer the noise level, and the class where there is one.

    Args:
        channels: width of the vector.
        classes: number of classes; 0: unconditional.
    """

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.classes = classes
        self.noise = NoiseEmbedding(channels)
        self.label = nn.Embedding(classes, channels) if classes else None
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())

    def forward(self, noise_label: Tensor, class_label: Tensor | None) -> Tensor:
        """[N], int64 [N] (-1: no class) -> [N, channels]. Raises ValueError if labels are missing or not wanted."""
        if (class_label is None) == bool(self.classes):
            raise ValueError("class labels must be given exactly when the network is class-conditional")
        embedding = self.noise(noise_label)
        if self.label is not None and class_label is not None:
            embedding = embedding + self.label(class_label.clamp(min=0)) * (class_label >= 0)[:, None]
        return self.layers(embedding)


def neumann_features(x: Tensor, highest: int, half_width: float) -> Tensor:
    """sin and cos of n pi (x + h) / (2 h), n = 1..highest, of each coordinate: the modes of a box [-h, h].

    Args:
        x: [N, D]. highest: number of frequencies. half_width: h.
    Returns: [N, 2 D highest].
    Source: [derived, theory 5.4] eigenfunctions of the Laplacian in a box, and their derivatives.
    """
    n = torch.arange(1, highest + 1, dtype=x.dtype, device=x.device)
    angles = (x[..., None] + half_width) * (math.pi / (2 * half_width)) * n
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
