"""Solvers: orders, exact budgets, exact cases."""

import math

import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import Sampling
from hamflow.registry import convert
from hamflow.sampling import count_evaluations, names, nfe_of, solve, steps_for, time_grid
from hamflow.sampling.grids import KINDS
from hamflow.sampling.solvers import SOLVERS, adams_bashforth_weights, multistep

FIXED = sorted(name for name, solver in SOLVERS.items() if solver.order and not solver.knows_flow)


def pendulum_like(x, t):
    return -x * torch.cos(t) + 0.2 * torch.sin(x)


def uniform(steps):
    """An even grid from 2 to 0."""
    return torch.linspace(2, 0, steps + 1, dtype=torch.float64)


def warped(steps):
    """A non-uniform decreasing grid from 2 to 0."""
    u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return 2 * (u + u**2) / 2


def test_every_sampler_but_the_adaptive_ones_have_an_order_and_a_budget():
    fixed = {name for name, solver in SOLVERS.items() if solver.order}
    adaptive = {"dopri5", "dopri5_log", "dopri5_each"}
    assert set(names()) - fixed == adaptive == {name for name, solver in SOLVERS.items() if solver.slope == 0}


@pytest.mark.parametrize("sampler", FIXED)
@pytest.mark.parametrize(
    "grid", [warped, lambda n: torch.linspace(2, 0, n + 1, dtype=torch.float64)], ids=["warped", "uniform"]
)
def test_order(sampler, grid):
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    exact = solve("rk4", pendulum_like, x, grid(4096))
    errors = [float((solve(sampler, pendulum_like, x, grid(n)) - exact).abs().max()) for n in (64, 128, 256)]
    assert math.log2(errors[1] / errors[2]) == pytest.approx(SOLVERS[sampler].order, abs=0.1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_multistep_reaches_every_order_where_the_field_begins_gently(order):
    """A field that grows as (1 - t/2)^4 from the start, as velocities do in pure noise: starting at low order costs nothing."""

    def gentle(x, t):
        return (1 - t / 2) ** 4 * pendulum_like(x, t)

    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    exact = solve("rk4", gentle, x, warped(4096))
    errors = [float((multistep(gentle, x, warped(n), order) - exact).abs().max()) for n in (128, 256)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_multistep_weights_are_the_classical_ones_on_a_uniform_grid():
    assert adams_bashforth_weights([0, 1]) == pytest.approx([1])
    assert adams_bashforth_weights([0, 1, 2]) == pytest.approx([3 / 2, -1 / 2])
    assert adams_bashforth_weights([0, 1, 2, 3]) == pytest.approx([23 / 12, -16 / 12, 5 / 12])
    assert adams_bashforth_weights([0, 1, 2, 3, 4]) == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24])


def test_multistep_weights_integrate_polynomials_exactly_on_any_grid():
    times = [1.0, 0.83, 0.5, 0.41, 0.2]
    weights, length = adams_bashforth_weights(times), times[-1] - times[-2]
    for power in range(4):
        quadrature = length * sum(w * t**power for w, t in zip(weights, times[-2::-1], strict=True))
        assert quadrature == pytest.approx((times[-1] ** (power + 1) - times[-2] ** (power + 1)) / (power + 1), abs=1e-13)


@pytest.mark.parametrize("sampler", FIXED)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_budget_is_spent_exactly(sampler, steps):
    velocity = count_evaluations(pendulum_like)
    solve(sampler, velocity, torch.ones(3, 2), warped(steps))
    assert velocity.count == nfe_of(sampler, steps)
    assert steps_for(sampler, velocity.count) == steps


@pytest.mark.parametrize(
    ("sampler", "nfe", "message"),
    [
        ("heun", 10, r"2\*steps - 1 .*nfe = 10[\s\S]*use 9 or 11"),
        ("rk4", 2, "use 4"),
        ("midpoint", 7, "use 6 or 8"),
        ("euler", 0, ">= 1"),
        ("euler", "auto", "fixed integer"),
        ("dopri5", 10, "'auto'"),
        ("huen", 9, "Did you mean 'heun'"),
        ("euler", True, "integer"),
    ],
)
def test_an_impossible_budget_is_refused_with_the_nearest_possible(sampler, nfe, message):
    with pytest.raises(ConfigurationError, match=message):
        steps_for(sampler, nfe)


@pytest.mark.parametrize("sampler", FIXED)
def test_a_constant_velocity_is_integrated_exactly_by_all(sampler):
    x = solve(sampler, lambda x, t: torch.full_like(x, 3.0), torch.zeros(2, 1), warped(5))
    torch.testing.assert_close(x, torch.full((2, 1), -6.0, dtype=torch.float64), rtol=1e-14, atol=0)


def test_the_state_is_float64_whatever_comes_in():
    seen = []

    def velocity(x, t):
        seen.append((x.dtype, t.dtype))
        return x.float().to(x.dtype)

    assert solve("heun", velocity, torch.ones(2, 1), warped(3)).dtype == torch.float64
    assert set(seen) == {(torch.float64, torch.float64)}


@pytest.mark.parametrize("times", [[1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.5]])
def test_times_that_are_not_monotone_are_refused(times):
    with pytest.raises(ConfigurationError, match="monotone"):
        solve("euler", pendulum_like, torch.ones(1, 1), torch.tensor(times))


def test_dopri5_meets_its_tolerance_and_reports_what_it_spent():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    velocity = count_evaluations(pendulum_like)
    found = solve("dopri5", velocity, x, warped(1))
    torch.testing.assert_close(found, solve("rk4", pendulum_like, x, warped(2000)), rtol=0, atol=1e-4)
    assert 10 < velocity.count < 200
    assert steps_for("dopri5", "auto") == "auto"


def test_dopri5_in_the_logarithm_of_time_meets_its_tolerance():
    """x' = x / (t + 1e-3), of which (t + 1e-3) c is the solution, from 80 to 0 with the last step from 1e-3."""
    velocity = count_evaluations(lambda x, t: x / (t + 1e-3))
    times = torch.tensor([80.0, 1e-3, 0.0], dtype=torch.float64)
    found = solve("dopri5_log", velocity, torch.full((1, 1), 80.001, dtype=torch.float64), times)
    torch.testing.assert_close(found, torch.full((1, 1), 1e-3, dtype=torch.float64), rtol=0, atol=1e-4)
    assert steps_for("dopri5_log", "auto") == "auto"
    assert velocity.count % 6 == 3  # 6 a step, 2 at the start, 1 in the last


def every_flow():
    return [flows.build(name) for name in flows.names()]


@pytest.mark.parametrize("flow", every_flow(), ids=lambda f: f.name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_grids_run_from_the_horizon_to_nought(flow, kind, steps):
    times = time_grid(flow, steps, kind)
    assert times.dtype == torch.float64
    assert len(times) == steps + 1
    assert (float(times[0]), float(times[-1])) == (flow.horizon, 0.0)
    assert bool((times.diff() < 0).all())


def test_the_edm_grid_is_that_of_the_paper():
    """Karras et al. 2022, eq. 5, and its image under t = arctan(alpha sigma) / alpha (theory 6.3)."""
    sigma = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert time_grid(flows.build("diffusion"), 18).tolist() == pytest.approx([*sigma, 0.0], rel=1e-12)
    spec = [1.5534, 1.5463, 1.5356, 1.5192, 1.4935, 1.4523, 1.3848, 1.2729, 1.0913, 0.8276]
    spec += [0.5296, 0.2882, 0.1386, 0.0599, 0.0229, 0.0075, 0.002, 0]
    assert time_grid(flows.build("oscillation", alpha=1.0), 18).tolist()[1:] == pytest.approx(spec, abs=6e-5)
    matching = time_grid(flows.build("flow_matching"), 18).tolist()
    assert matching[1:] == pytest.approx([s / (1 + s) for s in sigma[1:]] + [0.0], rel=1e-12)


def test_a_grid_of_numbers_has_them_as_times_and_falls_between_them():
    flow, shares = flows.build("diffusion"), (1.0, 0.97, 0.5, 0.05, 0.0)
    assert (time_grid(flow, 4, shares) / flow.horizon).tolist() == pytest.approx(shares)
    for steps in range(1, 40):
        times = time_grid(flow, steps, shares)
        assert (float(times[0]), float(times[-1])) == (flow.horizon, 0.0)
        assert bool((times.diff() < 0).all())
    even = torch.linspace(1, 0, 5, dtype=torch.float64).tolist()
    torch.testing.assert_close(time_grid(flow, 18, even), time_grid(flow, 18, "uniform"))


@pytest.mark.parametrize("shares", [(1, 0.5), (0.9, 0.0), (1, 0.4, 0.5, 0), (1, 0.5, 0.5, 0), (1, math.nan, 0)])
def test_a_grid_that_does_not_fall_to_the_data_is_refused(shares):
    with pytest.raises(ConfigurationError, match="do not fall from 1"):
        time_grid(flows.build("diffusion"), 3, shares)
    with pytest.raises(ConfigurationError, match=r"`grid` = .* do not fall from 1"):
        convert(Sampling, {"grid": list(shares)}, "")


def test_unknown_grids_and_no_steps_are_refused():
    with pytest.raises(ConfigurationError, match="edm, uniform, power"):
        time_grid(flows.build("diffusion"), 3, "edn")
    with pytest.raises(ConfigurationError, match="at least 1"):
        time_grid(flows.build("diffusion"), 0)


def test_the_oscillation_rotates_gaussian_data_without_error_in_any_step():
    """Data N(0, 1/alpha^2): V = 0, every sampler returns its start: the law does not move (theory 4.3)."""
    flow = flows.build("oscillation", alpha=2.0)
    law = GaussianMixture([1.0], [0.0], [0.5])
    start = flow.terminal(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None])
    for sampler in FIXED:
        torch.testing.assert_close(
            solve(sampler, law.velocity_under(flow), start, time_grid(flow, 3)), start, rtol=0, atol=1e-14
        )
