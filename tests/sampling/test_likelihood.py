"""Log-densities of exact velocities are those of the law; a round trip comes home."""

import math

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.laws.mixtures import GaussianMixture
from hamflow.sampling import solve, time_grid
from hamflow.sampling.likelihood import bits_per_dimension, dequantise, log_density

GAUSSIAN = GaussianMixture([1.0], [[0.4, -0.3]], [[0.5, 0.8]])
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.2], [0.6, 0.4]], [[0.4, 0.5], [0.5, 0.3]])
FLOWS = [flows.build("flow_matching"), flows.build("oscillation", alpha=1.5), flows.build("diffusion", horizon=10.0)]


def true_end(law, flow):
    """log p_T of the law carried to the horizon: for diffusion it is not quite normal."""
    return law.carried_by(flow, flow.horizon).log_prob


@pytest.mark.parametrize("law", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_exact_traces_give_the_density_of_the_law(flow, law):
    x = law.sample(20, np.random.default_rng(0))
    found = log_density(law.velocity_under(flow), flow, x, steps=160, terminal=true_end(law, flow))
    torch.testing.assert_close(found.values, law.log_prob(x), rtol=0, atol=1e-6)
    assert found.nfe == 640
    assert float(found.standard_errors.max()) == 0
    if flow.name != "diffusion":  # it begins in N(0, I) exactly
        torch.testing.assert_close(log_density(law.velocity_under(flow), flow, x, steps=160).values, found.values)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_there_and_back_again(flow):
    x = MIXTURE.sample(20, np.random.default_rng(1))
    velocity = MIXTURE.velocity_under(flow)
    noise = log_density(velocity, flow, x, steps=100).noise
    torch.testing.assert_close(solve("rk4", velocity, noise, time_grid(flow, 100)), x, rtol=0, atol=1e-6)


def test_adaptive_steps_agree_to_their_tolerance():
    x = MIXTURE.sample(20, np.random.default_rng(2))
    found = log_density(MIXTURE.velocity_under(FLOWS[1]), FLOWS[1], x, sampler="dopri5")
    torch.testing.assert_close(found.values, MIXTURE.log_prob(x), rtol=0, atol=1e-3)


def test_random_probes_are_right_within_their_errors():
    """The mean over samples, which have independent probes, within two standard errors; each error is its sample's."""
    rng = np.random.default_rng(3)
    law = GaussianMixture([0.5, 0.5], rng.standard_normal((2, 6)), 0.5 + rng.random((2, 6)))
    x = law.sample(200, rng)
    found = log_density(law.velocity_under(FLOWS[1]), FLOWS[1], x, steps=40, probes=8)
    off = found.values - law.log_prob(x)
    standard_error = float(found.standard_errors.square().sum().sqrt()) / len(x)
    assert standard_error > 0
    assert abs(float(off.mean())) < 2 * standard_error
    assert float((off / found.standard_errors.clamp(min=1e-9)).square().median().sqrt()) == pytest.approx(0.71, abs=0.15)


def test_shapes_do_not_matter():
    law = GaussianMixture([0.5, 0.5], [[-1.0] * 4, [1.0] * 4], [0.5, 0.7])
    flow, x = FLOWS[1], law.sample(5, np.random.default_rng(4))

    def as_images(x, t):
        return law.velocity_under(flow)(x.flatten(1), t).reshape(x.shape)

    found = log_density(as_images, flow, x.reshape(5, 1, 2, 2), steps=60)
    torch.testing.assert_close(found.values, law.log_prob(x), rtol=0, atol=1e-5)
    assert found.noise.shape == (5, 1, 2, 2)


def test_bits_per_dimension_of_a_normal_law_on_a_fine_lattice_are_its_entropy():
    """(h - ln width) / ln 2 with h = ln(2 pi e s^2) / 2; the mean of 20,000 values within four of its standard errors."""
    s, width = 0.5, 2 / 255
    x = torch.from_numpy(s * np.random.default_rng(5).standard_normal((20_000, 1)))
    cells = (x / width).round() * width
    spread = dequantise(cells, width)
    assert float((spread - cells).abs().max()) <= width / 2
    bits = bits_per_dimension(GaussianMixture([1.0], [0.0], [s]).log_prob(spread), 1, width)
    exact = (math.log(2 * math.pi * math.e * s**2) / 2 - math.log(width)) / math.log(2)
    assert float(bits.mean()) == pytest.approx(exact, abs=4 * float(bits.std()) / math.sqrt(len(bits)))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigurationError, match="probes"):
        log_density(lambda x, t: x, FLOWS[0], torch.ones(2, 2), probes=1)
    with pytest.raises(NotOffered, match="reflection"):
        log_density(lambda x, t: 0 * x, flows.build("reflection"), torch.zeros(2, 2), steps=2)
