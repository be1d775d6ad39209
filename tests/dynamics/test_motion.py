"""Closed-form motions: against the differential equations, their invariants, and an event-driven simulation."""

import math

import pytest
import torch

from hamflow.dynamics import drift, fold, rotate


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(500, 3, generator=generator, dtype=torch.float64) for _ in range(2))


def test_rotation_conserves_the_energy(state):
    x, v = state
    alpha, t = 1.7, torch.linspace(-3, 5, len(x), dtype=torch.float64)
    x_t, v_t = rotate(x, v, alpha, t)
    torch.testing.assert_close(v_t**2 + alpha**2 * x_t**2, v**2 + alpha**2 * x**2, rtol=1e-12, atol=1e-12)


def test_a_quarter_period_exchanges_position_and_velocity(state):
    x, v = state
    x_t, v_t = rotate(x, v, 2.0, math.pi / 4)
    torch.testing.assert_close(x_t, v / 2, rtol=0, atol=1e-14)
    torch.testing.assert_close(v_t, -2 * x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("move", [drift, lambda x, v, t: rotate(x, v, 0.8, t)], ids=["drift", "rotate"])
def test_motions_compose_and_reverse(state, move):
    once = move(*state, 1.3)
    torch.testing.assert_close(move(*move(*state, 0.5), 0.8), once, rtol=0, atol=1e-12)
    torch.testing.assert_close(move(*once, -1.3), state, rtol=0, atol=1e-12)


def test_rotation_without_a_spring_is_refused_and_tends_to_drift(state):
    with pytest.raises(ValueError, match="drift"):
        rotate(*state, 0.0, 1.0)
    torch.testing.assert_close(rotate(*state, 1e-6, 1.0), drift(*state, 1.0), rtol=0, atol=1e-10)


def event_driven(x: float, v: float, low: float, high: float, t: float) -> tuple[float, float]:
    """Free flight from wall to wall, one hit after the other."""
    while v != 0:
        hit = ((high if v > 0 else low) - x) / v
        if hit >= t:
            break
        x, v, t = (high if v > 0 else low), -v, t - hit
    return x + v * t, v


def test_folding_equals_an_event_driven_simulation():
    generator = torch.Generator().manual_seed(1)
    low, high, t = -1.5, 2.0, 3.0
    x = low + (high - low) * torch.rand(2000, generator=generator, dtype=torch.float64)
    v = 4 * torch.randn(2000, generator=generator, dtype=torch.float64)
    folded = fold(*drift(x, v, t), low, high)
    walked = torch.tensor(
        [event_driven(*pair, low, high, t) for pair in zip(x.tolist(), v.tolist(), strict=True)], dtype=torch.float64
    )
    torch.testing.assert_close(torch.stack(folded, 1), walked, rtol=0, atol=1e-11)


def test_folding_leaves_the_inside_alone_and_is_idempotent(state):
    x, v = state
    inside, turned = fold(x, v, -0.5, 0.5)
    assert bool((inside.abs() <= 0.5).all())
    torch.testing.assert_close(fold(inside, turned, -0.5, 0.5), (inside, turned))
    untouched = x.abs() < 0.5
    torch.testing.assert_close(inside[untouched], x[untouched])
    torch.testing.assert_close(turned.abs(), v.abs())


def test_an_empty_box_is_refused(state):
    with pytest.raises(ValueError, match="low < high"):
        fold(*state, 1.0, 1.0)
