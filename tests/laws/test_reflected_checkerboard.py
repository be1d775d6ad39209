"""The closed form of the reflected checkerboard against brute force, and against itself."""

import math

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.laws.checkerboard import CheckerboardDensity
from hamflow.laws.reflected_checkerboard import (
    HIGH,
    LOW,
    SERIES_FROM,
    WIDTH,
    ReflectedCheckerboard,
    _images,
    _series,
    coefficients,
)


@pytest.fixture
def inside():
    return torch.from_numpy(np.random.default_rng(0).uniform(LOW, HIGH, (200, 2)))


def grid(side: int) -> torch.Tensor:
    """Mid-points of side x side cells of the box, [side^2, 2]."""
    mid = LOW + WIDTH * (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(mid, mid)


def test_series_and_images_agree_where_they_meet(inside):
    for spread in (0.8 * SERIES_FROM, SERIES_FROM, 1.5 * SERIES_FROM):
        for one, other in zip(_series(inside, spread), _images(inside, spread), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_coefficients_are_the_cosine_transform_of_the_wave():
    x = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000 * WIDTH
    wave = 1 - 2 * (x.floor() % 2)
    expected = [2 * float((wave * torch.cos(n * math.pi * x / WIDTH)).mean()) for n in range(1, 13)]
    torch.testing.assert_close(coefficients(12), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0.01, 0.2, 0.75, 3.0])
def test_the_law_has_unit_mass_and_the_velocity_is_its_scaled_score(inside, t):
    law = ReflectedCheckerboard(speed=1.3)
    assert float(law.density(grid(400), t).mean() * WIDTH**2) == pytest.approx(1, abs=1e-12)
    resolved = inside[law.density(inside, t) > 1e-6]
    x = resolved.clone().requires_grad_()
    (score,) = torch.autograd.grad(law.density(x, t).log().sum(), x)
    assert len(x) >= len(inside) / 3
    torch.testing.assert_close(law.velocity(resolved, t), -(1.3**2) * t * score, rtol=1e-8, atol=1e-8)


def test_the_velocity_has_no_component_normal_to_a_wall(inside):
    for wall in (LOW, HIGH):
        for axis in (0, 1):
            on_wall = inside.clone()
            on_wall[:, axis] = wall
            for t in (0.05, 0.3, 1.0):
                law = ReflectedCheckerboard()
                normal = law.velocity(on_wall[law.density(on_wall, t) > 1e-6], t)[:, axis]
                assert len(normal) >= len(inside) / 3
                torch.testing.assert_close(normal, torch.zeros_like(normal), rtol=0, atol=1e-12)


def test_its_colours_are_those_of_the_data_set():
    points = grid(8)
    black = CheckerboardDensity().support(points)
    expected = torch.where(black, 1 / 8, 0.0).double()
    torch.testing.assert_close(ReflectedCheckerboard().density(points, 0.02), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", [0.1, 0.4, 1.0])
def test_density_and_velocity_are_those_of_simulated_particles(t):
    """Particles that fly and bounce: their histogram, and the mean of v_t in each bin, within 5 standard errors."""
    n, bins = 1_000_000, 16
    rng = np.random.default_rng(1)
    flow = flows.build("reflection", low=LOW, high=HIGH, speed=1.0)
    x0 = CheckerboardDensity().sample(n, rng)
    x, v = flow.push(x0, torch.from_numpy(rng.standard_normal((n, 2))), t)
    cell = ((x - LOW) / WIDTH * bins).long().clamp(max=bins - 1)
    index = cell[:, 0] * bins + cell[:, 1]
    counts = torch.bincount(index, minlength=bins**2).double()

    law, fine = ReflectedCheckerboard(), 12  # each bin's exact mass and momentum by the mid-point rule
    points = grid(bins * fine)

    def per_bin(values):
        blocks = values.reshape(bins, fine, bins, fine, *values.shape[1:])
        return blocks.mean((1, 3)).reshape(bins**2, *values.shape[1:])

    density = law.density(points, t)
    mass = per_bin(density) * (WIDTH / bins) ** 2
    momentum = per_bin(density[:, None] * law.velocity(points, t)) * (WIDTH / bins) ** 2
    assert ((counts / n - mass).abs() < 5 * (mass / n).sqrt() + 1e-5).all()
    for axis in (0, 1):
        total = torch.zeros(bins**2, dtype=torch.float64).index_add_(0, index, v[:, axis])
        square = torch.zeros(bins**2, dtype=torch.float64).index_add_(0, index, v[:, axis].square())
        assert ((total / n - momentum[:, axis]).abs() < 5 * square.sqrt() / n + 2e-5).all()


def test_the_law_at_time_zero_is_refused(inside):
    with pytest.raises(ValueError, match="must be > 0"):
        ReflectedCheckerboard().velocity(inside, 0.0)
