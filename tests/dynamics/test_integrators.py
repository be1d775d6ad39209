"""Integrators: orders, symplecticity, reversal of time, exact cases, gradients."""

import itertools
import math

import pytest
import torch

from hamflow.dynamics import SCHEMES, ElasticBox, Gradient, Harmonic, compose, drift, fold, rotate, simulate, zero
from hamflow.errors import ConfigurationError

ORDERS = {"leapfrog": 2, "leapfrog_dkd": 2, "mclachlan": 2, "yoshida4": 4, "blanes_moan4": 4}


def pendulum(x, t):
    return -torch.sin(x)


def driven(x, t):
    """A force that depends on time: dv/dt = -x + cos(2 t)."""
    return -x + torch.cos(torch.as_tensor(2 * t, dtype=x.dtype))


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(64, 2, generator=generator, dtype=torch.float64) for _ in range(2))


def every_scheme(test):
    return pytest.mark.parametrize("scheme", sorted(SCHEMES))(test)


def measured_order(force, exact, state, scheme, steps):
    errors = [
        max(float((a - b).abs().max()) for a, b in zip(simulate(force, *state, 1.5, n, scheme), exact, strict=True))
        for n in steps
    ]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    return slopes[-1]


def test_every_scheme_has_a_known_order():
    assert set(ORDERS) == set(SCHEMES)


@every_scheme
def test_order_on_the_oscillator(state, scheme):
    exact = rotate(*state, 1.3, 1.5)
    assert measured_order(Harmonic(1.3), exact, state, scheme, (32, 64, 128)) == pytest.approx(ORDERS[scheme], abs=0.03)


@every_scheme
def test_order_under_a_force_that_depends_on_time(scheme):
    """x'' = -x + cos 2t from (x, v) = (1, 0): x = (4 cos t - cos 2t) / 3."""
    state = (torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    t = torch.tensor([1.5], dtype=torch.float64)
    exact = ((4 * t.cos() - (2 * t).cos()) / 3, (2 * (2 * t).sin() - 4 * t.sin()) / 3)
    assert measured_order(driven, exact, state, scheme, (32, 64, 128)) == pytest.approx(ORDERS[scheme], abs=0.05)


@every_scheme
def test_consistency_and_symmetry_of_the_coefficients(scheme):
    kicks, drifts = SCHEMES[scheme]
    assert sum(kicks) == pytest.approx(1, abs=1e-14)
    assert sum(drifts) == pytest.approx(1, abs=1e-14)
    assert kicks == pytest.approx(kicks[::-1])
    assert drifts == pytest.approx(drifts[::-1])


@every_scheme
def test_turning_the_velocity_round_leads_home(state, scheme):
    x, v = simulate(pendulum, *state, 4.0, 20, scheme)
    x, v = simulate(pendulum, x, -v, 4.0, 20, scheme)
    torch.testing.assert_close((x, -v), state, rtol=0, atol=1e-12)


@every_scheme
def test_a_negative_duration_undoes_a_force_that_depends_on_time(state, scheme):
    there = simulate(driven, *state, 2.0, 9, scheme)
    torch.testing.assert_close(simulate(driven, *there, -2.0, 9, scheme, start=2.0), state, rtol=0, atol=1e-12)


@every_scheme
def test_the_step_map_is_symplectic(scheme):
    """J^T Omega J = Omega for the Jacobian J of the map: volume and all Poincare invariants, under a gradient force."""

    def potential(x):
        return torch.cos(x).sum(-1) + 0.3 * (x[..., 0] * x[..., 1]) ** 2

    def flow(z):
        x, v = simulate(Gradient(potential), z[None, :2], z[None, 2:], 0.7, 3, scheme)
        return torch.cat([x[0], v[0]])

    z = torch.tensor([0.3, -0.8, 0.5, 0.9], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, z)
    identity, nought = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    omega = torch.cat([torch.cat([nought, identity], 1), torch.cat([-identity, nought], 1)])
    torch.testing.assert_close(jacobian.T @ omega @ jacobian, omega, rtol=0, atol=1e-12)


@every_scheme
def test_volume_is_preserved_by_a_force_that_is_no_gradient(scheme):
    def swirl(x, t):
        return torch.stack([x[:, 1] * x[:, 0], -x[:, 0] - x[:, 1] ** 2], 1)

    def flow(z):
        x, v = simulate(swirl, z[None, :2], z[None, 2:], 0.7, 3, scheme)
        return torch.cat([x[0], v[0]])

    jacobian = torch.autograd.functional.jacobian(flow, torch.tensor([0.3, -0.8, 0.5, 0.9], dtype=torch.float64))
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-12)


@every_scheme
def test_free_flight_is_exact_and_walls_reflect(state, scheme):
    torch.testing.assert_close(simulate(zero, *state, 2.5, 4, scheme), drift(*state, 2.5), rtol=0, atol=1e-13)
    x = state[0].clamp(-1, 1)
    walled = simulate(ElasticBox(-1.0, 1.0), x, state[1], 2.5, 4, scheme)
    torch.testing.assert_close(walled, fold(*drift(x, state[1], 2.5), -1.0, 1.0), rtol=0, atol=1e-12)


def test_each_sample_may_have_its_own_duration(state):
    durations = torch.linspace(0.1, 2, len(state[0]), dtype=torch.float64)
    together = simulate(pendulum, *state, durations, 7)
    alone = simulate(pendulum, state[0][10:11], state[1][10:11], float(durations[10]), 7)
    torch.testing.assert_close([part[10:11] for part in together], list(alone), rtol=0, atol=1e-14)


def test_the_shape_of_a_sample_is_free(state):
    flat = simulate(pendulum, *state, 1.0, 5)
    shaped = simulate(pendulum, *(part.reshape(16, 2, 2, 2) for part in state), 1.0, 5)
    torch.testing.assert_close([part.reshape(64, 2) for part in shaped], list(flat))


def test_gradients_pass_through_the_integrator():
    """x_t = cos(alpha t) x + sin(alpha t) v / alpha: d x_t / d alpha in closed form."""
    alpha = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    x, v, t = torch.full((1, 1), 0.4, dtype=torch.float64), torch.full((1, 1), -0.7, dtype=torch.float64), 0.9
    x_t, _ = simulate(lambda x, _: -(alpha**2) * x, x, v, t, 400, "yoshida4")
    x_t.sum().backward()
    a = 1.1
    exact = -t * math.sin(a * t) * 0.4 - 0.7 * (t * math.cos(a * t) / a - math.sin(a * t) / a**2)
    assert float(alpha.grad) == pytest.approx(exact, rel=1e-9)


def test_a_gradient_force_reaches_the_parameters_of_its_potential():
    stiffness = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.5]], dtype=torch.float64)
    force = Gradient(lambda x: stiffness / 2 * x.square().sum(-1))
    assert force(x, 0.0).item() == pytest.approx(-3.0)
    force(x, 0.0).sum().backward()
    assert float(stiffness.grad) == pytest.approx(-1.5)
    with torch.no_grad():
        assert not force(x, 0.0).requires_grad


def test_forces_are_evaluated_once_a_step():
    calls = []

    def counted(x, t):
        calls.append(t)
        return -x

    simulate(counted, torch.ones(1, 1), torch.ones(1, 1), 1.0, 10)
    assert len(calls) == 11  # the last kick of a step and the first of the next share one evaluation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1.0, 0), "steps >= 1"), ((1.0, 5, "leapfog"), "leapfrog")],
)
def test_what_cannot_be_integrated_is_refused(state, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        simulate(zero, *state, *arguments)


def test_a_force_of_the_wrong_shape_is_refused(state):
    with pytest.raises(ConfigurationError, match="shape"):
        simulate(lambda x, t: x[:, :1], *state, 1.0, 5)


def test_composition_merges_kicks():
    assert compose([0.25, 0.75]) == ((0.125, 0.5, 0.375), (0.25, 0.75))
