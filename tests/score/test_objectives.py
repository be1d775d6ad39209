"""The objectives against each other and against quadrature."""

import math

import numpy as np
import pytest
import torch

from hamflow import networks
from hamflow.dynamics import simulate
from hamflow.laws.gaussian_toy import GaussianToy
from hamflow.networks.small import Small
from hamflow.score import denoising, explicit, gain, hamiltonian, implicit, sliced
from hamflow.score.fields import ScoreField

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = torch.from_numpy(WEIGHTS / WEIGHTS.sum())
NODES = torch.from_numpy(NODES)


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape))


def quadrature(s):
    """x_0, v_0 and weights that integrate polynomials under N(0, s^2) x N(0, 1) exactly up to degree 79."""
    x, v = torch.meshgrid(s * NODES, NODES, indexing="ij")
    return x.reshape(-1, 1), v.reshape(-1, 1), (WEIGHTS[:, None] * WEIGHTS).reshape(-1)


def smooth_field(dimension):
    network = Small((dimension,), width=16, depth=2).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return ScoreField(network)


def test_explicit_loss_of_the_gaussian_toy():
    toy = GaussianToy(s=0.7, a=0.4)
    x, _, w = quadrature(toy.s)
    loss = explicit(lambda y: -toy.a * y, x, -x / toy.s**2)
    assert float(w @ loss) == pytest.approx(float(toy.explicit_loss), rel=1e-12)


def test_implicit_minus_explicit_is_a_constant_of_the_data(plane, rng):
    """E[div s + |s|^2/2] = L_esm - E|grad log p|^2 / 2 (integration by parts), here by a Riemann sum over the plane."""
    line = torch.arange(-8, 8, 0.05, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    p, target = plane.log_prob(x).exp() * 0.05**2, plane.score(x)
    differences = []
    for score in (lambda y: -y, lambda y: torch.sin(y) - 0.3 * y, lambda y: y.flip(1)):
        differences.append(float(p @ (explicit(score, x, target) - implicit(score, x)).detach()))
    fisher_half = float(p @ (0.5 * target.square().sum(1)))
    assert differences == pytest.approx([fisher_half] * 3, rel=1e-8)


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_exact_divergence_is_the_trace_of_the_jacobian(rng, shape):
    score = lambda y: torch.tanh(y) * y.flatten(1).sum(1).reshape(-1, *[1] * len(shape))  # noqa: E731
    x = normal(rng, 4, *shape)
    size = math.prod(shape)
    jacobians = [torch.autograd.functional.jacobian(lambda y: score(y[None])[0], row).reshape(size, size) for row in x]
    divergence = implicit(score, x) - 0.5 * score(x).square().flatten(1).sum(1)
    torch.testing.assert_close(divergence, torch.stack([j.trace() for j in jacobians]), rtol=1e-12, atol=1e-12)


def test_probes_that_average_to_the_identity_give_the_exact_values(rng):
    """Over the 2^D sign vectors the mean of n n^T is the identity: no sampling error is left."""
    field, x = smooth_field(3), normal(rng, 5, 3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    probes = signs[:, None, :].expand(-1, 5, -1)
    exact = implicit(field, x)
    torch.testing.assert_close(implicit(field, x, probes), exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sliced(field, x, probes), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.8])
def test_denoising_is_minimised_by_the_score_of_the_smoothed_data(sigma):
    """E of the loss of s = -theta y is theta^2 (s^2 + sigma^2)/2 - theta + const: minimum at theta = 1 / (s^2 + sigma^2)."""
    x, noise, w = quadrature(0.9)
    theta = torch.tensor(1 / (0.9**2 + sigma**2), dtype=torch.float64, requires_grad=True)
    loss = w @ denoising(lambda y: -theta * y, x, noise, sigma)
    assert float(torch.autograd.grad(loss, theta)[0]) == pytest.approx(0, abs=1e-10)


def test_gain_is_maximal_at_the_velocity_and_quadratic(rng):
    v, error = normal(rng, 6, 2, 3), normal(rng, 6, 2, 3)
    torch.testing.assert_close(gain(v, v) - gain(v + error, v), error.square().sum((1, 2)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("s", "a", "t"), [(1.0, 0.5, 0.3), (0.8, 3.0, 0.5), (1.2, 0.0, 0.7), (1.0, -1.0, 0.6)])
def test_hamiltonian_objective_attains_the_discrepancy_at_the_optimal_predictor(s, a, t):
    toy = GaussianToy(s, a)
    x, v, w = quadrature(s)
    critic = lambda y, time: toy.slope(t) * y  # noqa: E731
    value = hamiltonian(
        lambda y, time: -a * y,
        critic,
        x,
        v,
        torch.tensor(t, dtype=torch.float64),
        integration_steps=40,
        scheme="yoshida4",
    )
    assert float(w @ value) == pytest.approx(float(toy.discrepancy(t)), rel=1e-6)


@pytest.mark.parametrize(("s", "a", "t"), [(1.0, 0.5, 0.3), (0.8, 3.0, 0.5), (1.2, 0.1, 1.0), (1.0, -1.0, 0.6)])
def test_gradient_with_the_optimal_predictor_is_that_of_the_closed_form(s, a, t):
    """Envelope theorem (theory 2.8): through the integrator and the predictor's input, the predictor itself held fixed."""
    stiffness = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(GaussianToy(s, stiffness).discrepancy(t), stiffness)
    x, v, w = quadrature(s)
    slope = GaussianToy(s, a).slope(t)
    value = hamiltonian(
        lambda y, time: -stiffness * y,
        lambda y, time: slope * y,
        x,
        v,
        torch.tensor(t, dtype=torch.float64),
        integration_steps=40,
        scheme="yoshida4",
    )
    (gradient,) = torch.autograd.grad(w @ value, stiffness)
    assert float(gradient) == pytest.approx(float(expected), rel=1e-5)


def test_detaching_the_position_loses_part_of_the_gradient():
    """The part through V's input is of relative order t^2 (theory 2.8): the test above could not pass without it."""
    s, a, t = 1.0, 0.5, 0.5
    stiffness = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(GaussianToy(s, stiffness).discrepancy(t), stiffness)
    x, v, w = quadrature(s)
    x_t, v_t = simulate(lambda y, time: -stiffness * y, x, v, t, 40, "yoshida4")
    (gradient,) = torch.autograd.grad(w @ gain(GaussianToy(s, a).slope(t) * x_t.detach(), v_t), stiffness)
    assert abs(float(gradient / expected) - 1) > 0.05


def moments_of_gradient(loss, theta, w):
    """Mean and standard deviation over samples of d loss_i / d theta, by quadrature; loss: theta [N, 1] -> [N]."""
    own = torch.full((len(w), 1), theta, dtype=torch.float64, requires_grad=True)  # a copy of theta for each sample
    gradients = torch.autograd.grad(loss(own).sum(), own)[0][:, 0]
    mean = w @ gradients
    return float(mean), float((w @ (gradients - mean).square()).sqrt())


@pytest.mark.parametrize("theta", [0.5, 2.0])
def test_hamiltonian_gradient_to_leading_order(theta):
    """Gradient of a sample / 2 t^2 -> (theta - 1) x^2: mean theta - 1, std sqrt 2 |theta - 1|, SNR 1/sqrt 2 (theory 2.12)."""
    x, v, w = quadrature(1.0)
    errors = []
    for t in (0.1, 0.05):
        slope, time = GaussianToy(1.0, theta).slope(t), torch.tensor(t, dtype=torch.float64)
        loss = lambda p, c=slope, time=time: hamiltonian(lambda y, _: -p * y, lambda y, _: c * y, x, v, time)  # noqa: E731
        mean, std = moments_of_gradient(loss, theta, w)
        errors.append((mean / (2 * t**2) - (theta - 1), std / (2 * t**2) - math.sqrt(2) * abs(theta - 1)))
    orders = [math.log2(coarse / fine) for coarse, fine in zip(*errors, strict=True)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)
    assert [abs(e) for e in errors[1]] == pytest.approx([0, 0], abs=0.01 * abs(theta - 1))


def test_signal_to_noise_of_the_hamiltonian_and_of_the_denoising_gradient():
    """The numbers of theory 2.12: .55 to .71 against .005 to .14, at theta = 1/2."""
    x, v, w = quadrature(1.0)
    hsm, dsm = [], []
    for t in (0.05, 0.2, 0.5, 1.0):
        slope, time = GaussianToy(1.0, 0.5).slope(t), torch.tensor(t, dtype=torch.float64)

        def loss(p, slope=slope, time=time):
            return hamiltonian(lambda y, _: -p * y, lambda y, _: slope * y, x, v, time, integration_steps=20)

        mean, std = moments_of_gradient(loss, 0.5, w)
        hsm.append((mean / (2 * t**2), std / (2 * t**2)))
    for sigma in (0.01, 0.05, 0.1, 0.3):
        mean, std = moments_of_gradient(lambda p, sigma=sigma: denoising(lambda y: -p * y, x, v, sigma), 0.5, w)
        dsm.append(abs(mean) / std)
    expected = np.array([[-0.4986, 0.704], [-0.4790, 0.686], [-0.388, 0.592], [-0.208, 0.377]])
    assert np.array(hsm) == pytest.approx(expected, abs=2e-3)
    assert dsm == pytest.approx([0.005, 0.025, 0.049, 0.135], abs=1e-3)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1, 0.3])
def test_denoising_gradient_drowns_as_sigma_goes_to_zero(sigma):
    """g = theta y^2 - y n / sigma for y = x + sigma n: Gaussian moments in closed form; SNR ~ sigma (1 - theta) -> 0."""
    theta, total = 0.5, 1 + sigma**2
    x, noise, w = quadrature(1.0)
    mean, std = moments_of_gradient(lambda p: denoising(lambda y: -p * y, x, noise, sigma), theta, w)
    variance = 2 * theta**2 * total**2 + (1 + 2 * sigma**2) / sigma**2 - 4 * theta * total
    assert mean == pytest.approx(theta * total - 1, rel=1e-9)
    assert std == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert abs(mean) / std < 0.5 * math.sqrt(2) * sigma


def test_objectives_touch_no_global_generator_and_work_on_images(rng):
    network = networks.build(
        {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}, (1, 4, 4), seed=0
    )
    field, x = ScoreField(network), normal(rng, 3, 1, 4, 4).float()
    before = torch.get_rng_state().clone()
    noise = normal(rng, 3, 1, 4, 4).float()
    critic = lambda y, t: y  # noqa: E731
    values = [
        explicit(field, x, -x),
        denoising(field, x, noise, 0.5),
        implicit(field, x, noise[None]),
        sliced(field, x, noise[None]),
        hamiltonian(field, critic, x, noise, torch.full((3,), 0.2)),
    ]
    assert all(value.shape == (3,) and value.isfinite().all() for value in values)
    assert torch.equal(before, torch.get_rng_state())
