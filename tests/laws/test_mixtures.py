"""Mixtures of Gaussians against quadrature and automatic differentiation."""

import numpy as np
import pytest
import torch

from hamflow.laws.mixtures import GaussianMixture

# A spacing far below every standard deviation: the trapezium rule converges exponentially.
GRID = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
STEP = 120 / 240_000


@pytest.fixture
def line():
    return GaussianMixture([0.4, 0.6], [-2.0, 2.0], [1.0, 0.5])


@pytest.fixture
def plane():
    return GaussianMixture([0.5, 0.2, 0.3], [[1.5, 0.0], [-1.0, 1.3], [-1.0, -1.3]], [[0.6, 0.4], [0.5, 0.9], [0.3, 0.3]])


def density(law, x):
    return law.log_prob(x.reshape(-1, 1)).exp()


def test_density_mean_and_variance_by_quadrature(line):
    p = density(line, GRID)
    mean = (p * GRID).sum() * STEP
    assert float(p.sum() * STEP) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(mean, line.mean[0], rtol=0, atol=1e-12)
    torch.testing.assert_close((p * (GRID - mean) ** 2).sum() * STEP, line.variance[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0])
def test_denoiser_is_the_posterior_mean_by_quadrature(line, sigma):
    y = torch.linspace(-5, 5, 11, dtype=torch.float64)
    joint = density(line, GRID) * torch.exp(-0.5 * ((y[:, None] - GRID) / sigma) ** 2)
    expected = (joint * GRID).sum(1) / joint.sum(1)
    torch.testing.assert_close(line.denoise(y[:, None], sigma)[:, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_smoothed_is_the_convolution_by_quadrature(line, sigma):
    y = torch.linspace(-5, 5, 11, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((y[:, None] - GRID) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    expected = (kernel * density(line, GRID)).sum(1) * STEP
    torch.testing.assert_close(density(line.smoothed(sigma), y), expected, rtol=0, atol=1e-12)


def test_score_is_the_gradient_of_the_log_density(plane):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2))).requires_grad_()
    (expected,) = torch.autograd.grad(plane.log_prob(x).sum(), x)
    torch.testing.assert_close(plane.score(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_tweedie_joins_denoiser_and_score(plane, sigma):
    """E[x_0 | y] = y + sigma^2 grad log p_sigma(y) (Robbins 1956)."""
    y = torch.from_numpy(np.random.default_rng(1).normal(scale=2, size=(50, 2)))
    tweedie = y + sigma**2 * plane.smoothed(sigma).score(y)
    torch.testing.assert_close(plane.denoise(y, sigma), tweedie, rtol=0, atol=1e-10)


@pytest.mark.parametrize("a", [0.0, 1e-6, 0.3, 1.0, -2.0])
def test_regression_on_a_linear_path_by_quadrature(line, a):
    """E[a' x_0 + b' n | a x_0 + b n = x], with n = (x - a x_0) / b for given x."""
    b, da, db = 0.7, -1.5, 0.4
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    noise = (x - a * GRID) / b
    joint = density(line, GRID) * torch.exp(-0.5 * noise**2)
    expected = (joint * (da * GRID + db * noise)).sum(1) / joint.sum(1)
    torch.testing.assert_close(line.regress(x, (a, b), (da, db))[:, 0], expected, rtol=0, atol=1e-10)


def test_regression_without_noise_is_the_line_through_the_data(plane):
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(20, 2)))
    torch.testing.assert_close(plane.regress(x, (2.0, 0.0), (-3.0, 7.0)), -1.5 * x, rtol=0, atol=1e-13)


def test_a_noise_level_each_equals_one_at_a_time(plane):
    y = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 2)))
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    alone = torch.cat([plane.denoise(y[i : i + 1], sigma[i]) for i in range(3)])
    torch.testing.assert_close(plane.denoise(y, sigma), alone, rtol=0, atol=0)


def test_cdf_integrates_the_density_and_quantile_inverts_it(line):
    cumulative = torch.cumulative_trapezoid(density(line, GRID), GRID)
    inside = slice(100_000, 140_000, 500)
    torch.testing.assert_close(line.cdf(GRID[1:][inside]), cumulative[inside], rtol=0, atol=1e-7)
    p = torch.linspace(1e-6, 1 - 1e-6, 1001, dtype=torch.float64)
    torch.testing.assert_close(line.cdf(line.quantile(p)), p, rtol=0, atol=1e-14)


def test_scaling_commutes_with_smoothing(plane):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(20, 2)))
    one, other = plane.smoothed(0.5).scaled(-3.0), plane.scaled(-3.0).smoothed(1.5)
    torch.testing.assert_close(one.log_prob(x), other.log_prob(x), rtol=0, atol=1e-12)


def test_samples_have_the_mean_and_variance_of_the_law(plane):
    n = 200_000
    x = plane.sample(n, np.random.default_rng(4))
    assert (((x.mean(0) - plane.mean) / (plane.variance / n).sqrt()).abs() < 5).all()
    torch.testing.assert_close(x.var(0), plane.variance, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("weights", "means", "sds"),
    [
        ([0.5, 0.4], [0.0, 1.0], [1.0, 1.0]),
        ([1.5, -0.5], [0.0, 1.0], [1.0, 1.0]),
        ([1.0], [0.0], [0.0]),
        ([1.0], [0.0, 1.0], [1.0, 1.0]),
    ],
)
def test_what_is_no_law_is_refused(weights, means, sds):
    with pytest.raises(ValueError, match=r"weights|deviations"):
        GaussianMixture(weights, means, sds)


def test_points_and_quantiles_of_the_wrong_kind_are_refused(plane, line):
    with pytest.raises(ValueError, match="shape"):
        plane.log_prob(torch.zeros(2))
    with pytest.raises(ValueError, match="line"):
        plane.quantile(0.5)
    with pytest.raises(ValueError, match="strictly"):
        line.quantile(torch.tensor([0.0, 0.5]))
