"""A linear flow of normal states: density, exact encoder, and the bound's shortfall in closed form."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from hamflow.equivariant.bases import NormalBase
from hamflow.equivariant.encoders import Encoder
from hamflow.equivariant.energies import Energy
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Form(Energy):
    """x^T S x / 2."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = torch.nn.Parameter(matrix)

    def gradient(self, x):
        return x @ self.matrix


class LinearEncoder(Encoder):
    """N(W q + b, L L^T)."""

    def __init__(self, matrix, shift, lower):
        super().__init__()
        self.matrix, self.shift, self.lower = matrix, shift, lower

    def law(self, q):
        return MultivariateNormal(q @ self.matrix.T + self.shift, scale_tril=self.lower)

    def forward(self, q, noise):
        law = self.law(q)
        p = law.loc + noise @ self.lower.T
        return p, law.log_prob(p)


class Linear:
    """A linear flow of normal states: with s_n = M s_0 + m everything about it is normal and known."""

    def __init__(self):
        forms = [draw(2, 2, seed=seed) for seed in range(4)]
        k_1, u_1, k_2, u_2 = (Form(0.5 * (a @ a.T) + torch.eye(2)) for a in forms)
        flow = HamiltonianSequence([Hamiltonian(k_1, u_1), Hamiltonian(k_2, u_2)], 3, 0.3).double()
        self.base = NormalBase(2).double()
        with torch.no_grad():
            for index, weight in enumerate(self.base.parameters()):
                weight += 0.3 * draw(*weight.shape, seed=index)
        self.flow = flow.requires_grad_(False)
        columns = torch.eye(4, dtype=torch.float64)
        moved = torch.cat(flow(columns[:, :2], columns[:, 2:]), 1).T
        spread = torch.cat([self.base.log_q, self.base.log_p]).detach().exp()
        mean = moved @ torch.cat([self.base.mean.detach(), torch.zeros(2, dtype=torch.float64)])
        covariance = moved @ torch.diag(spread.square()) @ moved.T
        self.law = MultivariateNormal(mean[:2], covariance[:2, :2])
        gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
        rest = covariance[2:, 2:] - gain @ covariance[:2, 2:]
        self.exact = LinearEncoder(gain, mean[2:] - gain @ mean[:2], torch.linalg.cholesky(rest))
        self.other = LinearEncoder(gain + 0.2, self.exact.shift - 0.3, 1.3 * self.exact.lower)
        self.x = 1.5 * draw(8, 2, seed=9)

    def density(self, encoder, unit=1.0):
        return HamiltonianDensity(self.flow, self.base, encoder, unit)


@pytest.fixture
def linear():
    return Linear()


@torch.no_grad()
def test_with_the_exact_encoder_every_draw_gives_the_exact_density(linear):
    weights = linear.density(linear.exact).log_weights(linear.x, draw(5, 8, 2))
    torch.testing.assert_close(weights, linear.law.log_prob(linear.x).expand(5, 8), rtol=0, atol=1e-11)


@torch.no_grad()
def test_with_another_encoder_the_bound_is_short_by_exactly_the_divergence(linear):
    """The log-weight is a quadratic function of the noise, of which three nodes of Gauss and Hermite give the exact mean."""
    nodes = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
    weights = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    noise = torch.tensor(list(itertools.product(nodes, repeat=2)), dtype=torch.float64)
    mass = torch.tensor([a * b for a, b in itertools.product(weights, repeat=2)], dtype=torch.float64)
    found = mass @ linear.density(linear.other).log_weights(linear.x, noise[:, None].expand(9, 8, 2))
    short = kl_divergence(linear.other.law(linear.x), linear.exact.law(linear.x))
    assert float(short.min()) > 0.1
    torch.testing.assert_close(found, linear.law.log_prob(linear.x) - short, rtol=0, atol=1e-10)


@torch.no_grad()
def test_more_momenta_raise_the_bound_towards_the_density(linear):
    density, exact = linear.density(linear.other), linear.law.log_prob(linear.x)
    short = [float((exact - density.bound(linear.x, draw(n, 8, 2).float().double())).mean()) for n in (1, 16, 4096)]
    assert short[0] > short[1] > short[2]
    assert abs(short[2]) < 0.02


@torch.no_grad()
def test_units_change_the_density_as_they_should(linear):
    """p(x) of x = u q is p(q) / u^d."""
    found = linear.density(linear.exact, unit=2.5).bound(2.5 * linear.x, draw(1, 8, 2))
    torch.testing.assert_close(found, linear.law.log_prob(linear.x) - 2 * math.log(2.5), rtol=0, atol=1e-6)


@torch.no_grad()
def test_samples_have_the_law(linear):
    x = linear.density(linear.exact).draw(draw(40_000, 2), draw(40_000, 2, seed=1))
    torch.testing.assert_close(x.mean(0), linear.law.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(x.T), linear.law.covariance_matrix, rtol=0.04, atol=0.04)
