"""The coloured oscillation: Gaussian data in closed form, the colour of data, and the white oscillation as its limit."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from hamflow import flows
from hamflow.draws import BatchDraws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.flows.colour import Colour, cosines, log_variances
from hamflow.laws.mixtures import GaussianMixture
from hamflow.training.fit import Samples

D = 4


@pytest.fixture(scope="module")
def rows():
    """Correlated points whose spread is sqrt(tr S / d)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, D, generator=generator, dtype=torch.float64)
    return (x - x.mean(0)) @ torch.randn(D, D, generator=generator, dtype=torch.float64)


def covariance_of(x):
    return torch.cov(x.T, correction=0)


def coloured(rows, colour, **options):
    alpha = math.sqrt(D / float(covariance_of(rows).trace()))
    flow = flows.build("oscillation_coloured", colour=colour, alpha=alpha, ridge=0.0, **options).for_shape((D,))
    flow.measure(Samples(rows))
    return flow


def matrix(flow):
    """K, column by column."""
    return flow.times_covariance(torch.eye(D, dtype=torch.float64))


def gaussian(flow, data, t, target):
    """The matrix A of E[c x_0 + e n | x_t = x] = A x for data N(0, S), n ~ N(0, K) and target (c, e)."""
    a, b, _, _ = (float(c) for c in flow.coefficients(torch.tensor(t, dtype=torch.float64)))
    return (target[0] * a * data + target[1] * b * matrix(flow)) @ torch.linalg.inv(a**2 * data + b**2 * matrix(flow))


@pytest.mark.parametrize("colour", [0.0, 0.3, 1.0])
def test_k_is_a_power_of_the_covariance_at_unit_mean_variance(rows, colour):
    values, vectors = torch.linalg.eigh(covariance_of(rows))
    power = vectors @ torch.diag(values**colour) @ vectors.T
    torch.testing.assert_close(matrix(coloured(rows, colour)), power * D / power.trace(), rtol=1e-10, atol=1e-10)


def test_two_bands_are_a_power_and_equal_bands_are_white(rows):
    values = torch.linalg.eigvalsh(covariance_of(rows))
    power = [3.0, 3.0 + 0.6 * float((values[-1] / values[0]).log())]  # ln c at both ends, but for a constant
    torch.testing.assert_close(matrix(coloured(rows, power)), matrix(coloured(rows, 0.6)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(matrix(coloured(rows, [2.0, 2.0, 2.0])), torch.eye(D, dtype=torch.float64))


def test_bands_are_linear_in_between():
    spectrum = torch.tensor([0.0, 1.0, 1.5, 2.0, 4.0], dtype=torch.float64).exp()
    assert log_variances([0.0, 2.0, -2.0], spectrum).tolist() == pytest.approx([0.0, 1.0, 1.5, 2.0, -2.0])
    assert log_variances([1.0, 5.0], torch.ones(3, dtype=torch.float64)).tolist() == [1.0] * 3  # one eigenvalue has the first


@pytest.mark.parametrize("colour", [[1.0], [0.0, math.nan], [0.0, 21.0], 1.5, "red"])
def test_colours_that_are_none_are_refused(colour):
    with pytest.raises(ConfigurationError, match="colour"):
        flows.build("oscillation_coloured", colour=colour)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("colour", [0.0, 0.4, 1.0, (0.0, 1.0, 0.5)])
def test_velocity_denoiser_noise_and_score_of_gaussian_data(rows, colour, share):
    flow, data = coloured(rows, colour), covariance_of(rows)
    t, x = share * flow.horizon, rows[:20]
    a, b, a_dot, b_dot = (float(c) for c in flow.coefficients(torch.tensor(t, dtype=torch.float64)))
    velocity = x @ gaussian(flow, data, t, (a_dot, b_dot)).T
    denoised, noise = (x @ gaussian(flow, data, t, target).T for target in ((1.0, 0.0), (0.0, 1.0)))
    score = -x @ torch.linalg.inv(a**2 * data + b**2 * matrix(flow))
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(flow.denoiser_from_velocity(x, velocity, t), denoised, **exact)
    torch.testing.assert_close(flow.noise_from_velocity(x, velocity, t), noise, **exact)
    torch.testing.assert_close(flow.score_from_velocity(x, velocity, t), score, **exact)
    torch.testing.assert_close(flow.velocity_from_score(x, score, t), velocity, **exact)


def test_the_velocity_of_gaussian_data_is_zero_at_full_colour(rows):
    flow, data = coloured(rows, 1.0), covariance_of(rows)
    for t in (0.0, 0.2 * flow.horizon, 0.7 * flow.horizon):
        _, _, a_dot, b_dot = (float(c) for c in flow.coefficients(torch.tensor(t, dtype=torch.float64)))
        assert float(gaussian(flow, data, t, (a_dot, b_dot)).abs().max()) < 1e-10
        velocity = flow.velocity_from_score(rows, -rows @ torch.linalg.inv(data), t)
        assert float(velocity.abs().max()) < 1e-10


def test_the_noise_has_covariance_k_and_no_colour_is_the_oscillation_bit_for_bit(rows):
    flow = coloured(rows, 0.6)
    n = 100_000
    found = covariance_of(flow.noise(BatchDraws(0, batch=n), (D,)).double())
    scale = matrix(flow).diagonal().sqrt()
    assert float(((found - matrix(flow)) / scale / scale[:, None]).abs().max()) < 5 * math.sqrt(2 / n)

    white, plain = coloured(rows, 0.0), flows.build("oscillation", alpha=coloured(rows, 0.0).alpha)
    draws, t, law = BatchDraws(0, batch=50), torch.tensor(0.3, dtype=torch.float64), GaussianMixture([1.0], [[0.5] * D], [0.3])
    noise = white.noise(draws, (D,))
    assert torch.equal(noise, plain.noise(draws, (D,)))
    assert torch.equal(white.terminal(noise), plain.terminal(noise))
    for one, other in zip(white.push(rows[:50], noise, t), plain.push(rows[:50], noise, t), strict=True):
        assert torch.equal(one, other)
    scores = [f.smoothed_score(law.velocity_under(f), rows[:9], 0.4) for f in (white, plain)]
    assert torch.equal(*scores)


def test_smoothed_scores_are_of_white_noise_and_not_offered(rows):
    with pytest.raises(NotOffered, match="coloured noise"):
        coloured(rows, 0.5).smoothed_score(lambda x, t: x, rows, 0.3)


def test_cosines_are_those_of_scipy_and_orthonormal():
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    colour = Colour((3, 4, 6), 0.5, basis="cosine")
    expected = torch.from_numpy(dctn(x.numpy(), axes=(1, 2, 3), norm="ortho"))
    torch.testing.assert_close(colour._transform(x, forward=True), expected)
    torch.testing.assert_close(colour._transform(expected, forward=False), x)
    torch.testing.assert_close(cosines(5) @ cosines(5).T, torch.eye(5, dtype=torch.float64))


def test_a_power_law_of_images_is_found_again():
    """Images with variance A_c (1 + k^2)^-1.3 at frequency k: the fitted spectrum is it, within the noise of 20,000 images."""
    shape, colour = (3, 8, 8), Colour((3, 8, 8), 1.0, ridge=0.0, basis="cosine")
    k = torch.arange(8, dtype=torch.float64).square()
    true = torch.tensor([4.0, 1.0, 0.25])[:, None, None] * (1 + k[:, None] + k) ** -1.3
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, *shape)))
    colour.measure(Samples(colour._transform(noise * true.sqrt(), forward=False)))
    torch.testing.assert_close(colour.spectrum.reshape(shape), true, rtol=0.02, atol=0)
    image = noise[:1]
    torch.testing.assert_close(colour.apply_power(colour.apply_power(image, 0.5), -0.5), image)


def test_a_covariance_that_is_not_positive_is_refused():
    flat = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 0.0])
    with pytest.raises(ConfigurationError, match="not positive") as caught:
        Colour((3,), 0.5, ridge=0.0).measure(Samples(flat))
    assert "ridge" in caught.value.fix
    Colour((3,), 0.5, ridge=0.01).measure(Samples(flat))
    with pytest.raises(ConfigurationError, match="not positive"):
        Colour((3,), 0.5).check()  # never measured


def test_the_full_covariance_of_large_images_is_refused():
    with pytest.raises(ConfigurationError, match="at most 1024 coordinates, these data have 3072"):
        Colour((3, 32, 32), 0.3, basis="pca")
    assert not Colour((3, 32, 32), 0.3).full
