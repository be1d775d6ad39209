"""Samples of a model that was trained on changed images, and told how, show none of the changes."""

import math

import pytest
import torch
from torch import nn

from hamflow.methods.base import METHODS, Facts, Sampling
from hamflow.networks.base import NETWORKS
from hamflow.networks.embeddings import NoiseEmbedding
from hamflow.training.augmentation import NUMBERS
from hamflow.training.fit import Samples, fitted
from hamflow.training.plan import Training

SIDE, SAMPLES = 4, 400
DOWN, RIGHT = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
OPTIONS = {
    "flow": {"name": "oscillation"},
    "parameterisation": "velocity",
    "times": {"law": "log_normal", "mean": -1.2, "std": 1.2},
}
DDPMPP = {"kind": "ddpmpp", "channels": 16, "multipliers": [1], "blocks": 1, "attention": [], "augmentation": True}


class Dense(nn.Module):
    """A multilayer perceptron of all pixels: it learns what the numbers mean in far fewer steps than convolutions do."""

    sample_dims = 3

    def __init__(self, shape, classes=0, width: int = 128, augmentation: bool = False):
        super().__init__()
        self.noise, pixels = NoiseEmbedding(16), math.prod(shape)
        widths = [pixels + 16 + NUMBERS, width, width, width]
        layers = [layer for i in range(3) for layer in (nn.Linear(widths[i], widths[i + 1]), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, pixels))

    def forward(self, x, noise_label, class_label=None, augmentation=None):
        numbers = x.new_zeros(len(x), NUMBERS) if augmentation is None else augmentation
        return self.layers(torch.cat([x.flatten(1), self.noise(noise_label), numbers], dim=1)).view_as(x)


@pytest.fixture
def dense(monkeypatch):
    NETWORKS.names()
    monkeypatch.setattr(NETWORKS, "_entries", NETWORKS._entries | {"dense": Dense})


def shares(network, kimg, learning_rate, **changes):
    """The shares of samples that are mirrored and flipped: the images get brighter to the right, and half as fast downwards."""
    strength = 0.3 + 0.3 * torch.rand(256, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    x = strength * (RIGHT + DOWN / 2)
    facts = Facts(name="ramp", shape=(1, SIDE, SIDE), classes=0, sigma_data=float(x.std()), box=(-1.0, 1.0), network=network)
    method = METHODS.build("velocity", **OPTIONS, **changes)
    plan = Training(train_kimg=kimg, batch=64, learning_rate=learning_rate, warmup_kimg=2, ema_halflife_kimg=4)
    model = method.generator(fitted(method.objective(facts, {}, 0), Samples(x), plan, 0))
    model.sampling = Sampling(sigma_min=0.02, sigma_max=10.0)
    samples = model.sample(range(SAMPLES), "heun", 17)[0].float()
    return [float(((samples * slope).sum((1, 2, 3)) < 0).float().mean()) for slope in (RIGHT, DOWN)]


def test_samples_show_no_mirrored_images(dense):
    """Half of the training images are mirrored, 6 % flipped, 12 % each turned, scaled, stretched, shifted."""
    assert max(shares({"kind": "dense", "augmentation": True}, 32, 4e-3, augmentation=0.12)) < 0.02


@pytest.mark.slow
def test_samples_of_the_published_network_show_none_either():
    assert max(shares(DDPMPP, 20, 1e-2, augmentation=0.12)) < 0.02


@pytest.mark.slow
def test_samples_of_images_that_nearly_all_were_changed_show_nothing_of_it(dense):
    """Of the training images 3 % are neither turned, scaled, stretched, shifted nor flipped, and half of these mirrored."""
    assert max(shares({"kind": "dense", "augmentation": True}, 128, 4e-3, augmentation=0.5)) < 0.02


@pytest.mark.slow
def test_samples_show_what_the_network_is_not_told(dense):
    """Plain mirroring, of which half of the samples must be: so the tests above can fail."""
    mirrored, flipped = shares({"kind": "dense"}, 32, 4e-3, mirror=True)
    assert mirrored == pytest.approx(0.5, abs=0.1)
    assert flipped < 0.02
