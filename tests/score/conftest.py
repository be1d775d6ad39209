"""What the tests of score matching share."""

import numpy as np
import pytest
import torch

from hamflow.laws.mixtures import GaussianMixture


@pytest.fixture(scope="session")
def plane():
    """The pilot mixture of three components in the plane."""
    return GaussianMixture([0.4, 0.3, 0.3], [[1.5, 0.0], [-1.0, 1.3], [-1.0, -1.3]], [0.6, 0.6, 0.6])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape))
