"""The triangle law: its Bessel function against a quadrature over the angle, its symmetries, its samples, its volume."""

import itertools
import math

import numpy as np
import torch

from hamflow.equivariant import over_particles, poisson_bracket, special_euclidean
from hamflow.laws.triangles import TriangleDensity
from hamflow.studies.particles import RELATIVE

LAW = TriangleDensity(1.5, 0.4)


def samples(n, seed=0):
    return LAW.sample(n, np.random.default_rng(seed))


def test_the_density_is_the_mean_over_turned_and_mirrored_triangles():
    x, angles = samples(20), 2 * math.pi * torch.arange(256, dtype=torch.float64) / 256
    total = torch.zeros(20, dtype=torch.float64)
    for sign, angle in itertools.product((1, -1), angles.tolist()):
        phases = angle + sign * 2 * math.pi / 3 * torch.arange(3, dtype=torch.float64)
        corners = 1.5 * torch.stack([phases.cos(), phases.sin()], 1).reshape(6)
        total += torch.exp(-(x - corners).square().sum(1) / (2 * 0.4**2)) / (2 * math.pi * 0.4**2) ** 2 / 512
    torch.testing.assert_close(LAW.log_prob(x), total.log(), rtol=0, atol=1e-12)


def test_it_is_invariant_under_se_2_renumbering_and_reflection():
    x = samples(20).requires_grad_()
    turn = over_particles(special_euclidean(2)[2], 3)
    value = poisson_bracket(turn, lambda q, p: LAW.log_prob(q))(x, torch.zeros_like(x))
    assert float(value.detach().abs().max()) < 1e-10
    each = x.detach().reshape(20, 3, 2)
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(LAW.log_prob(each[:, order].reshape(20, 6)), LAW.log_prob(x), rtol=0, atol=1e-10)
    mirrored = (each * torch.tensor([1.0, -1.0])).reshape(20, 6)
    torch.testing.assert_close(LAW.log_prob(mirrored), LAW.log_prob(x), rtol=0, atol=1e-10)


def test_it_integrates_to_one_over_the_mean_free_states():
    """By importance sampling from a normal law of the relative positions, whose map back keeps volume."""
    torch.testing.assert_close(RELATIVE @ RELATIVE.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-15)
    spread = float((samples(4000) @ RELATIVE.T).std())
    y = 1.2 * spread * torch.from_numpy(np.random.default_rng(1).standard_normal((200_000, 4)))
    log_normal = -0.5 * (y / (1.2 * spread)).square().sum(1) - 2 * math.log(2 * math.pi * (1.2 * spread) ** 2)
    weights = torch.exp(LAW.log_prob(y @ RELATIVE) - log_normal)
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / len(y) ** 0.5


def test_samples_have_the_law():
    """E|x|^2 = 3 R^2 + 4 s^2 (four free coordinates), and no mean position."""
    x = samples(40_000)
    assert float(x.reshape(-1, 3, 2).mean(1).abs().max()) < 1e-12
    squares = x.square().sum(1)
    expected = 3 * 1.5**2 + 4 * 0.4**2
    assert abs(float(squares.mean()) - expected) < 4 * float(squares.std()) / len(x) ** 0.5
