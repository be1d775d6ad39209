"""Parameterisations: against the published formulas."""

import math

import pytest
import torch

from hamflow import flows, parameterisation
from hamflow.errors import ConfigurationError
from hamflow.parameterisation.base import SIGMA_RANGE

SIGMA_DATA = 0.5


def network(x, c, label=None):
    """Any smooth function of position and noise label."""
    return torch.sin(2 * x) + c[:, None] * x**2


@pytest.fixture
def x():
    return torch.linspace(-3, 3, 40, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 80.0])
def test_edm_equals_the_denoiser_of_the_paper(x, sigma):
    """Karras et al. 2022, table 1: D = c_skip x + c_out F(c_in x, c_noise), V = (x - D) / sigma."""
    flow = flows.build("diffusion")
    spread = math.hypot(sigma, SIGMA_DATA)
    c_skip, c_out = SIGMA_DATA**2 / spread**2, sigma * SIGMA_DATA / spread
    inner = network(x / spread, torch.full((len(x),), math.log(sigma) / 4, dtype=torch.float64))
    denoised = c_skip * x + c_out * inner
    velocity = parameterisation.build("edm", flow, SIGMA_DATA).velocity(network, x, sigma)
    torch.testing.assert_close(velocity, (x - denoised) / sigma, rtol=1e-9, atol=1e-9)


def test_edm_weights_make_the_velocity_loss_the_published_loss():
    sigma = torch.logspace(-3, 2, 20, dtype=torch.float64)
    weight = parameterisation.build("edm", flows.build("diffusion"), SIGMA_DATA).weight(sigma[:, None], sigma)
    published = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2  # on |D - x_0|^2 = sigma^2 |V - v_0|^2
    torch.testing.assert_close(weight, published * sigma**2)


def test_edm_is_regular_where_the_data_are(x):
    velocity = parameterisation.build("edm", flows.build("diffusion"), SIGMA_DATA).velocity(network, x, 0.0)
    assert bool(torch.isfinite(velocity).all())


def test_the_network_of_the_oscillation_is_edms_up_to_sign(x):
    """alpha = 1/sigma_data: the same network gives V_osc = F where EDM has F = -V_osc (theory 4.5)."""
    oscillation, diffusion = flows.build("oscillation", alpha=1 / SIGMA_DATA), flows.build("diffusion")
    for sigma in (0.01, 0.5, 20.0):
        t = oscillation.time(torch.tensor(sigma, dtype=torch.float64))
        y = x * math.hypot(sigma, SIGMA_DATA)
        edm = parameterisation.build("edm", diffusion, SIGMA_DATA)
        denoised = diffusion.denoiser_from_velocity(y, edm.velocity(lambda *a: -network(*a), y, sigma), sigma)
        x_t = torch.cos(oscillation.alpha * t) * y
        velocity = parameterisation.build("velocity", oscillation, SIGMA_DATA).velocity(network, x_t, t)
        torch.testing.assert_close(oscillation.velocity_from_denoiser(x_t, denoised, t), velocity, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", flows.names())
def test_the_noise_label_is_finite_from_the_data_to_the_horizon(name, x):
    flow = flows.build(name)
    scheme = parameterisation.build("velocity", flow, SIGMA_DATA)
    t = torch.linspace(0, 1, len(x), dtype=torch.float64) * flow.horizon
    labels = scheme.noise_label(x, t)
    assert bool((labels.diff() >= 0).all())
    assert float(labels[0]) == pytest.approx(math.log(SIGMA_RANGE[0]) / 4)
    assert float(labels[-1]) <= math.log(SIGMA_RANGE[1]) / 4 + 1e-12
    assert bool(torch.isfinite(scheme.velocity(network, x, t)).all())


def test_edm_belongs_to_diffusion():
    with pytest.raises(ConfigurationError, match="needs no preconditioning"):
        parameterisation.build("edm", flows.build("oscillation"), SIGMA_DATA)


def test_an_unknown_parameterisation_names_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean 'velocity'"):
        parameterisation.build("velocty", flows.build("oscillation"), SIGMA_DATA)
