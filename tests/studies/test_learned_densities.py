"""What the studies of densities measure, on latents and laws for which it is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from hamflow.equivariant import rotation
from hamflow.studies.densities import normal_law, paired, representation


class Latent:
    """A generator with a given latent."""

    def __init__(self, latent):
        self.latent = latent


def planar(n=500):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def measured(latent):
    return representation(Latent(latent), planar(), rotation(2))


def test_a_latent_that_turns_with_its_data_is_perfect():
    found = measured(lambda x: (2 * x, x * x.norm(dim=1, keepdim=True)))
    assert max(found.values()) < 1e-25


def test_a_latent_that_stays_has_invariants_but_does_not_turn():
    """|z - R z|^2 = (2 - 2 cos 1) |z|^2 in the plane."""
    still = lambda x: (x.norm(dim=1, keepdim=True) * torch.tensor([1.0, 0.0]).double(), 0 * x)  # noqa: E731
    found = representation(Latent(lambda x: (still(x)[0], still(x)[0].flip(1))), planar(), rotation(2))
    assert found["turning"] == pytest.approx(2 - 2 * math.cos(1), rel=1e-12)


def test_an_oblong_latent_leaks():
    found = measured(lambda x: (x * torch.tensor([3.0, 1.0]).double(), x))
    assert min(found.values()) > 0.05


def test_the_normal_law_of_points_is_the_best_one():
    """-E ln N at the points' own mean and covariance (of n, for n - 1: a factor that the trace takes out)."""
    x = planar() @ torch.tensor([[1.0, 0.4], [0.0, 0.7]]).double() + 2
    law = MultivariateNormal(x.mean(0), torch.cov(x.T))
    expected = -float(law.log_prob(x).mean()) + 0.5 * 2 / len(x)
    assert normal_law(x) == pytest.approx(expected, abs=1e-10)


def test_pairs_of_runs_are_compared_by_their_differences():
    found = paired([1.0, 2.0, 4.0], [1.5, 3.0, 4.0])
    assert found["mean"] == pytest.approx(0.5)
    assert found["standard_error"] == pytest.approx(0.5 / 3**0.5)
    assert paired([1.0], [2.0])["standard_error"] is None
