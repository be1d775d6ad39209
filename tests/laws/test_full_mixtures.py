"""Mixtures with full covariances against those with diagonal ones, and the law of one Gaussian."""

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError
from hamflow.laws.full_mixtures import FullMixture
from hamflow.laws.mixtures import GaussianMixture

WEIGHTS, MEANS, SDS = [0.5, 0.2, 0.3], [[1.5, 0.0], [-1.0, 1.3], [-1.0, -1.3]], [[0.6, 0.4], [0.5, 0.9], [0.3, 0.3]]


def spread_of(covariance):
    return float(covariance.diagonal().mean().sqrt())


def root_of_power(covariance, power):
    """R, symmetric, with R^2 in proportion to covariance^power and of unit mean variance."""
    spectrum, vectors = torch.linalg.eigh(covariance)
    factors = spectrum**power
    return vectors * (factors / factors.mean()).sqrt() @ vectors.T


def turned(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


@pytest.fixture
def points():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((50, 2)))


@pytest.mark.parametrize("name", ["oscillation", "flow_matching", "diffusion"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_the_velocity_of_a_turned_diagonal_mixture_is_its_velocity_turned(points, name, share):
    diagonal, turn = GaussianMixture(WEIGHTS, MEANS, SDS), turned(0.7)
    law = FullMixture(diagonal.weights, diagonal.means @ turn.T, turn @ torch.diag_embed(diagonal.sds.square()) @ turn.T)
    flow = flows.build(name)
    t = torch.tensor(share * flow.horizon, dtype=torch.float64)
    ours = law.velocity_under(flow, torch.eye(2, dtype=torch.float64))(points @ turn.T, t)
    torch.testing.assert_close(ours, diagonal.velocity_under(flow)(points, t) @ turn.T, rtol=1e-9, atol=1e-9)


def test_noise_of_any_colour_is_white_noise_in_other_coordinates(points):
    """With y = R^-1 x the law of y_0 is the mixture of means R^-1 m and covariances R^-1 S R^-1, and its noise is white."""
    diagonal = GaussianMixture(WEIGHTS, MEANS, SDS)
    law = FullMixture(diagonal.weights, diagonal.means, torch.diag_embed(diagonal.sds.square()))
    root = root_of_power(torch.tensor([[2.0, 0.8], [0.8, 1.0]], dtype=torch.float64), 0.5)
    inverse = torch.linalg.inv(root)
    white = FullMixture(law.weights, law.means @ inverse, inverse @ law.covariances @ inverse)
    flow, one, t = flows.build("oscillation"), torch.eye(2, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    ours = law.velocity_under(flow, root)(points, t)
    torch.testing.assert_close(ours, white.velocity_under(flow, one)(points @ inverse, t) @ root, rtol=1e-9, atol=1e-9)


def test_gaussian_data_under_noise_of_their_own_colour_have_no_velocity(points):
    covariance = torch.tensor([[2.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    law = FullMixture(torch.ones(1), torch.zeros(1, 2), covariance[None])
    flow = flows.build("oscillation", alpha=1 / spread_of(covariance))
    velocity = law.velocity_under(flow, root_of_power(covariance, 1.0))
    for share in (0.1, 0.5, 0.9):
        assert velocity(points, torch.tensor(share * flow.horizon)).abs().max() < 1e-12


def test_the_fit_has_the_covariance_of_the_data_and_the_ridge():
    rows = np.random.default_rng(1).standard_normal((400, 3)) * [1.0, 2.0, 3.0]
    law = FullMixture.fit(rows, 2, ridge=0.1, seed=0)
    expected = np.cov(rows.T, bias=True) + 0.1 * rows.var(0).mean() * np.eye(3)
    assert law.covariance.numpy() == pytest.approx(expected, abs=1e-6)  # maximum likelihood keeps the first two moments


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigurationError, match="20 components needs at least 40"):
        FullMixture.fit(np.zeros((39, 2)), 20, 0.01, 0)
