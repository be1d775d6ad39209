"""Parameterisations: against the published formulas."""

import math

import pytest
import torch

from hamflow import flows, parameterisation
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.parameterisation.base import SIGMA_RANGE
from hamflow.sampling import solve, time_grid

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


PUBLISHED = {  # c_skip, c_out, c_in, c_noise of Karras et al. 2022, table 1, at a noise level
    "edm": lambda s: (
        SIGMA_DATA**2 / (s**2 + SIGMA_DATA**2),
        s * SIGMA_DATA / math.hypot(s, SIGMA_DATA),
        1 / math.hypot(s, SIGMA_DATA),
        math.log(s) / 4,
    ),
    "ve": lambda s: (1.0, s, 1.0, math.log(s / 2)),
    "vp": lambda s: (1.0, -s, 1 / math.hypot(s, 1), 999 * (math.sqrt(0.01 + 39.8 * math.log1p(s * s)) - 0.1) / 19.9),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("sigma", [0.02, 0.5, 3.0, 80.0])
def test_each_preconditioning_is_the_published_one(name, sigma, x):
    c_skip, c_out, c_in, c_noise = PUBLISHED[name](sigma)
    denoised = c_skip * x + c_out * network(c_in * x, torch.full((len(x),), c_noise, dtype=torch.float64))
    scheme = parameterisation.build(name, flows.build("diffusion"), SIGMA_DATA)
    torch.testing.assert_close(scheme.velocity(network, x, sigma), (x - denoised) / sigma, rtol=1e-9, atol=1e-7)
    weight = {"edm": 1 / c_out**2}.get(name, 1 / sigma**2)  # of |D - x_0|^2 = sigma^2 |V - v_0|^2
    t = torch.tensor([sigma], dtype=torch.float64)
    torch.testing.assert_close(scheme.weight(x, t), torch.tensor([weight * sigma**2], dtype=torch.float64))


SIGMA_OF = {  # the noise level that a network reads off its label
    "edm": lambda c: (4 * c).exp(),
    "ve": lambda c: 2 * c.exp(),
    "vp": lambda c: torch.expm1(9.95 * (c / 999) ** 2 + 0.1 * c / 999).sqrt(),
}


def exact_network(name, mixture):
    """The network that makes D the mixture's exact denoiser: it inverts the label and the scalings."""

    def inner(seen, c, label=None):
        (sigma,) = SIGMA_OF[name](c).unique().tolist()
        c_skip, c_out, c_in, _ = PUBLISHED[name](sigma)
        y = seen / c_in
        return (mixture.denoise(y, sigma) - c_skip * y) / c_out

    return inner


@pytest.mark.parametrize("name", PUBLISHED)
def test_with_the_exact_denoiser_each_runs_down_one_probability_flow(name):
    """Heun's samples are the same to rounding, and those of the flow's own exact velocity."""
    mixture = GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.7, 0.2]], [0.3, 0.5])
    flow = flows.build("diffusion")
    scheme, inner = parameterisation.build(name, flow, SIGMA_DATA), exact_network(name, mixture)
    start = 80 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = time_grid(flow, 18, sigma_min=0.02)
    found = solve("heun", lambda y, t: scheme.velocity(inner, y, t), start, times)
    torch.testing.assert_close(found, solve("heun", mixture.velocity_under(flow), start, times), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_regular_where_the_data_are(name, x):
    velocity = parameterisation.build(name, flows.build("diffusion"), SIGMA_DATA).velocity(network, x, 0.0)
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preconditioning_of_the_denoiser_belongs_to_diffusion(name):
    with pytest.raises(ConfigurationError, match=f"'{name}' belongs to[\\s\\S]*needs no preconditioning"):
        parameterisation.build(name, flows.build("oscillation"), SIGMA_DATA)


def test_an_unknown_parameterisation_names_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean 'velocity'"):
        parameterisation.build("velocty", flows.build("oscillation"), SIGMA_DATA)
