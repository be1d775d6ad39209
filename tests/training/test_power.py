"""Averages of a length that is chosen afterwards: closed forms of their profile, and what can be made of two of them."""

import math

import numpy as np
import pytest
import torch

from hamflow.training.power import PowerAverage, combination, combined, exponent, overlap, width_of

WIDTHS = (0.03, 0.05, 0.1, 0.2, 0.28)


def profile(t, gamma, tau):
    return np.where(tau <= t, (gamma + 1) * tau**gamma / t ** (gamma + 1), 0.0)


def weights_of_steps(gamma, steps):
    """((j/k)^(gamma + 1) - ((j - 1)/k)^(gamma + 1)), the integral of the profile over each step."""
    return np.diff((np.arange(steps + 1) / steps) ** (gamma + 1))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_exponent_is_that_of_the_width(width):
    """Mean and variance of the profile by numbers alone; and the inverse."""
    gamma = exponent(width)
    tau = (np.arange(200_000) + 0.5) / 200_000
    p = profile(1.0, gamma, tau) / len(tau)
    mean = p @ tau
    assert p.sum() == pytest.approx(1, abs=1e-4)
    assert math.sqrt(p @ (tau - mean) ** 2) == pytest.approx(width, rel=1e-3)
    assert width_of(gamma) == pytest.approx(width, rel=1e-9)


def test_the_plain_mean_is_the_widest():
    assert exponent(12**-0.5 * (1 - 1e-9)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="0.289"):
        exponent(0.3)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_running_average_is_the_profile_in_closed_form(width):
    """Step by step it gives each step exactly the profile's integral over it, and its start no part."""
    module = torch.nn.Linear(40, 1, bias=False).double()
    average = PowerAverage(module, width)
    for step in range(1, 41):
        with torch.no_grad():
            module.weight.copy_(torch.eye(40, dtype=torch.float64)[step - 1])
        average.update(module, step)
    expected = weights_of_steps(exponent(width), 40)
    np.testing.assert_allclose(average.module.weight.numpy()[0], expected, atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [((3.0, 5.0), (7.0, 20.0)), ((7.0, 5.0), (7.0, 16.0)), ((8.0, 40.0), (3.0, 2.0))])
def test_the_overlap_is_the_integral_of_the_product(a, b):
    tau = (np.arange(400_000) + 0.5) / 400_000 * 8
    integral = (profile(*a, tau) * profile(*b, tau)).sum() * 8 / len(tau)
    assert overlap(a, b) == pytest.approx(integral, rel=1e-4)
    assert overlap(a, b) == overlap(b, a)


def trajectory(steps, seed):
    """Weights that drift and jitter, [steps, 3]."""
    rng = np.random.default_rng(seed)
    drift = np.exp(-np.arange(steps) / 60)[:, None] * rng.standard_normal(3)
    return drift + 0.3 * rng.standard_normal((steps, 3)) + np.cos(np.arange(steps) / 40)[:, None]


KEPT = [(float(step), exponent(width)) for step in range(25, 401, 25) for width in (0.05, 0.10)]


@pytest.mark.parametrize("width", [0.05, 0.07, 0.1, 0.15, 0.2])
@pytest.mark.parametrize("end", [400.0, 250.0])
def test_another_length_is_as_near_as_theory_says(width, end):
    """The error is at most the distance of the profiles times the trajectory's about a constant (Cauchy and Schwarz)."""
    theta = trajectory(400, 0)
    averages = [weights_of_steps(gamma, int(t)) @ theta[: int(t)] for t, gamma in KEPT]
    wanted = (end, exponent(width))
    factors, distance = combination(KEPT, wanted)
    found = factors @ np.array(averages)
    exact = weights_of_steps(wanted[1], int(end)) @ theta[: int(end)]
    spread = np.sqrt(((theta - theta.mean(0)) ** 2).sum(0))
    bound = distance * math.sqrt(overlap(wanted, wanted)) * spread
    assert (np.abs(found - exact) <= bound + 1e-8).all()
    assert factors.sum() == pytest.approx(1, abs=1e-9)
    assert distance < 0.1


def test_what_was_kept_comes_back_exactly_and_more_snapshots_come_nearer():
    factors, distance = combination(KEPT, KEPT[-1])
    assert distance < 1e-5
    np.testing.assert_allclose(factors, np.eye(len(KEPT))[-1], atol=1e-5)
    wanted = (400.0, exponent(0.15))
    distances = [combination([(t, g) for t, g in KEPT if t % every == 0], wanted)[1] for every in (200, 100, 50, 25)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.1 * distances[0]


def test_tensors_that_never_moved_stay_as_they_are():
    fixed, count = torch.rand(3), torch.tensor(7)
    parts = [{"w": torch.full((2,), float(i)), "fixed": fixed, "count": count} for i in range(3)]
    found = combined(parts, np.array([0.3, -0.2, 0.9]))
    assert found["fixed"] is fixed
    assert found["count"] is count
    torch.testing.assert_close(found["w"], torch.full((2,), 1.6))
