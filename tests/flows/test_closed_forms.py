"""Linear flows on Gaussian mixtures: exact velocity, denoiser, score and sampling map."""

import math

import pytest
import torch

from hamflow import flows
from hamflow.laws.mixtures import GaussianMixture
from hamflow.sampling import solve, time_grid


class CosineLaw:
    """p_t(x) = (1 + sum_n c_n e^{-(n pi S t / L)^2 / 2} cos(n pi (x - low) / L)) / L: a law in a box under the reflected heat
    kernel (theory 5.2), with few terms, so that density, distribution function and velocity are exact."""

    def __init__(self, low, width, speed, coefficients):
        self.low, self.width, self.speed = low, width, speed
        self.c = torch.tensor(coefficients, dtype=torch.float64)
        self.k = torch.arange(1, len(coefficients) + 1, dtype=torch.float64) * math.pi / width

    def terms(self, x, t):
        return self.c * torch.exp(-((self.k * self.speed * t) ** 2) / 2), self.k * (x[..., None] - self.low)

    def velocity(self, x, t):
        """-S^2 t times the gradient of log p_t."""
        c, angle = self.terms(x, float(t))
        density, slope = 1 + (c * angle.cos()).sum(-1), -(c * self.k * angle.sin()).sum(-1)
        return -(self.speed**2) * t * slope / density

    def quantile(self, p, t):
        low, high = torch.full_like(p, self.low), torch.full_like(p, self.low + self.width)
        for _ in range(60):
            middle = (low + high) / 2
            c, angle = self.terms(middle, t)
            cdf = ((middle - self.low) + (c / self.k * angle.sin()).sum(-1)) / self.width
            low, high = torch.where(cdf < p, middle, low), torch.where(cdf < p, high, middle)
        return (low + high) / 2


def inner_times(flow):
    return (torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64) * flow.horizon).tolist()


def test_the_wronskian_is_one(linear):
    a, b, a_dot, b_dot = linear.coefficients(torch.linspace(0, 1, 40, dtype=torch.float64) * linear.horizon)
    torch.testing.assert_close(a * b_dot - a_dot * b, torch.ones_like(a), rtol=0, atol=1e-13)


def test_the_coefficients_are_those_of_the_motion(linear, data, noise):
    t = torch.linspace(0, 1, len(data), dtype=torch.float64) * linear.horizon
    a, b, a_dot, b_dot = (c[:, None] for c in linear.coefficients(t))
    pushed = linear.push(data, linear.couple(data, noise), t)
    torch.testing.assert_close(pushed, (a * data + b * noise, a_dot * data + b_dot * noise), rtol=0, atol=1e-12)


EXACT = {"rtol": 1e-10, "atol": 1e-10}


def test_velocity_denoiser_and_noise_agree_with_the_mixtures(linear, mixture):
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    for t in inner_times(linear):
        velocity = mixture.velocity_under(linear)(x, t)
        denoised, noise = (mixture.mean_under(linear, x, t, target) for target in ((1.0, 0.0), (0.0, 1.0)))
        torch.testing.assert_close(linear.denoiser_from_velocity(x, velocity, t), denoised, **EXACT)
        torch.testing.assert_close(linear.noise_from_velocity(x, velocity, t), noise, **EXACT)
        torch.testing.assert_close(linear.velocity_from_denoiser(x, denoised, t), velocity, **EXACT)
        torch.testing.assert_close(linear.velocity_from_noise(x, noise, t), velocity, **EXACT)


def test_velocity_denoiser_noise_and_score_agree_with_the_mixtures(gaussian, mixture):
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    for t in inner_times(gaussian):
        a, b, _, _ = (float(c) for c in gaussian.coefficients(torch.tensor(t, dtype=torch.float64)))
        velocity = mixture.velocity_under(gaussian)(x, t)
        score = mixture.scaled(a).smoothed(b).score(x)
        torch.testing.assert_close(gaussian.denoiser_from_velocity(x, velocity, t), mixture.denoise(x / a, b / a), **EXACT)
        torch.testing.assert_close(gaussian.score_from_velocity(x, velocity, t), score, **EXACT)
        torch.testing.assert_close(gaussian.noise_from_velocity(x, velocity, t), -b * score, **EXACT)
        torch.testing.assert_close(gaussian.velocity_from_score(x, score, t), velocity, **EXACT)


def test_the_smoothed_score_is_that_of_the_smoothed_mixture(gaussian, mixture):
    y = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    for sigma in (0.05, 0.5, 5.0):
        found = gaussian.smoothed_score(mixture.velocity_under(gaussian), y, sigma)
        torch.testing.assert_close(found, mixture.smoothed(sigma).score(y), rtol=1e-10, atol=1e-10)


def central_difference(f, h):
    """Derivative at 0 to fourth order in h."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def test_the_law_is_transported(linear, mixture):
    """Continuity: d/dt log p + V' + V score = 0 for the density p of x_t."""
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
    velocity = mixture.velocity_under(linear)

    def law(t):
        return mixture.carried_by(linear, t)

    for t in inner_times(linear):
        rate = central_difference(lambda h, t=t: law(t + h * linear.horizon).log_prob(x), 1e-4) / linear.horizon
        divergence = central_difference(lambda d, t=t: velocity(x + d, t), 1e-3)[:, 0]
        transport = (velocity(x, t) * law(t).score(x))[:, 0]
        torch.testing.assert_close(rate + divergence + transport, torch.zeros(25).double(), atol=1e-8, rtol=0)


def test_running_backwards_is_the_quantile_map(linear, mixture):
    noise = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)[:, None]
    x_T = linear.terminal(noise)
    times = time_grid(linear, 400, "edm", sigma_min=1e-7)  # the velocity of one degree jumps at t = 0
    x_0 = solve("rk4", mixture.velocity_under(linear), x_T, times)
    exact = mixture.quantile(mixture.carried_by(linear, linear.horizon).cdf(x_T))  # monotone [derived: theory 4.2]
    torch.testing.assert_close(x_0, exact, rtol=0, atol=1e-7)


def test_running_the_reflection_backwards_is_the_quantile_map():
    """The same for the box, x_T by the exact law at T, through the mirror images and folded once at the end."""
    flow = flows.build("reflection", low=-2.0, high=2.0, speed=1.3, horizon=3.0)
    law = CosineLaw(flow.low, flow.width, flow.speed, [0.5, -0.3, 0.0, 0.1])
    p = torch.linspace(0.02, 0.98, 33, dtype=torch.float64)
    x_T = law.quantile(p, flow.horizon)[:, None]
    x_0 = flow.settle(solve("rk4", flow.unfold(law.velocity), x_T, time_grid(flow, 400, "edm", sigma_min=1e-4)))
    torch.testing.assert_close(x_0[:, 0], law.quantile(p, 0.0), rtol=0, atol=1e-8)


def test_the_smoothed_score_in_the_box_is_that_of_the_heat_kernel():
    flow = flows.build("reflection", low=-2.0, high=2.0, speed=1.3, horizon=3.0)
    law = CosineLaw(flow.low, flow.width, flow.speed, [0.5, -0.3, 0.0, 0.1])
    y, sigma = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None], 0.6
    c, angle = law.terms(y, sigma / flow.speed)
    slope = -(c * law.k * angle.sin()).sum(-1) / (1 + (c * angle.cos()).sum(-1))
    torch.testing.assert_close(flow.smoothed_score(law.velocity, y, sigma), slope, rtol=1e-12, atol=1e-12)


def test_reflected_data_follow_the_heat_kernel():
    """The empirical cosine moments of pushed data decay as e^{-(n pi S t / L)^2 / 2}, within five standard errors."""
    flow = flows.build("reflection", low=-2.0, high=2.0, speed=1.3, horizon=3.0)
    law = CosineLaw(flow.low, flow.width, flow.speed, [0.5, -0.3, 0.0, 0.1])
    generator = torch.Generator().manual_seed(6)
    n = 200_000
    x0 = law.quantile(torch.rand(n, generator=generator, dtype=torch.float64), 0.0)
    v0 = flow.couple(x0, torch.randn(n, generator=generator, dtype=torch.float64))
    for t in (0.3, 0.8, 1.5):
        x_t, v_t = flow.push(x0, v0, t)
        c, angle = law.terms(x_t, t)
        torch.testing.assert_close(angle.cos().mean(0), c / 2, rtol=0, atol=5 / math.sqrt(2 * n))
        weight = angle.sin()  # E[v_t g(x_t)] = E[V(x_t) g(x_t)] for every g: V is the conditional mean
        difference = (weight * (v_t - law.velocity(x_t, t))[:, None]).mean(0)
        assert float(difference.abs().max()) < 5 * flow.speed / math.sqrt(n)


@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_the_inner_network_of_edm_is_minus_the_oscillation_velocity(sigma_data):
    """alpha = 1 / sigma_data: D = c_skip y + c_out F gives F = -V at the same noise level [derived: theory 4.5]."""
    mixture = GaussianMixture([0.3, 0.7], [-1.0, 0.8], [0.4, 0.6])
    flow = flows.build("oscillation", alpha=1 / sigma_data)
    for sigma in (0.002, 0.1, 1.0, 9.0, 80.0):
        y = sigma * torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
        denoised = mixture.denoise(y, sigma)
        spread = math.hypot(sigma, sigma_data)
        inner = (denoised - sigma_data**2 / spread**2 * y) * spread / (sigma * sigma_data)
        t = float(flow.time(torch.tensor(sigma, dtype=torch.float64)))
        x_t = math.cos(flow.alpha * t) * y
        velocity = mixture.velocity_under(flow)(x_t, t)
        torch.testing.assert_close(inner, -velocity, rtol=0, atol=1e-10)
        torch.testing.assert_close(flow.standardise(x_t, t, sigma_data), y / spread, rtol=1e-10, atol=0)


def test_flow_matching_and_oscillation_velocities_convert_into_each_other():
    """Through the denoiser at equal sigma: V_fm = (y - (1 + sigma) D) / sigma, V_osc = alpha (cos^2 y - D) / sin."""
    matching, oscillation = flows.build("flow_matching"), flows.build("oscillation", alpha=1.7)
    mixture = GaussianMixture([0.3, 0.7], [-1.0, 0.8], [0.4, 0.6])
    sigma = torch.tensor(0.8, dtype=torch.float64)
    y = torch.linspace(-3, 3, 31, dtype=torch.float64)[:, None]
    t_f, t_o = matching.time(sigma), oscillation.time(sigma)
    x_f, x_o = y / (1 + sigma), torch.cos(1.7 * t_o) * y
    denoised = matching.denoiser_from_velocity(x_f, mixture.velocity_under(matching)(x_f, t_f), t_f)
    torch.testing.assert_close(
        oscillation.velocity_from_denoiser(x_o, denoised, t_o),
        mixture.velocity_under(oscillation)(x_o, t_o),
        rtol=0,
        atol=1e-10,
    )
    assert float(t_f) == pytest.approx(float(torch.tan(1.7 * t_o) / (1.7 + torch.tan(1.7 * t_o))), rel=1e-12)
