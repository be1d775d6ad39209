"""Steps of one's own: the tolerance is kept, what a sample becomes does not depend on the others, and evaluations are counted.

Oracle where it is installed: torchode 1.0.1 (`pip install --no-deps torchode torchtyping typeguard==2.13.3`, and sympy).
"""

import warnings

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import DivergenceError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.sampling import adaptive, count_evaluations, solve, steps_for, time_grid
from hamflow.sampling.likelihood import log_density

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.2], [0.6, 0.4]], [[0.4, 0.5], [0.05, 0.3]])
FLOWS = [flows.build("flow_matching"), flows.build("oscillation", alpha=1.5), flows.build("diffusion", horizon=10.0)]
ENDS = torch.tensor([2.0, 0.0], dtype=torch.float64)


def stiff(x, t):
    """A field whose time scale is another for each sample: x' = -x_2 x_1, the rate x_2 stays."""
    return torch.stack([-x[:, 1] * x[:, 0], torch.zeros_like(t + x[:, 1])], 1)


def starts(flow, count=40):
    return flow.terminal(torch.from_numpy(np.random.default_rng(0).standard_normal((count, 2))))


def test_the_weights_are_of_orders_five_and_four():
    """sum b c^k = 1 / (k + 1) up to the order, and the stages stand at their nodes."""
    nodes, fifth = np.array(adaptive.NODES), np.append(adaptive.STAGES[-1], 0.0)
    fourth = np.array(adaptive.FOURTH)
    for k in range(5):
        assert fifth @ nodes**k == pytest.approx(1 / (k + 1), abs=1e-14)
        assert k == 4 or fourth @ nodes**k == pytest.approx(1 / (k + 1), abs=1e-14)
    assert [sum(row) for row in adaptive.STAGES] == pytest.approx(list(nodes[1:]), abs=1e-13)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_the_tolerance_is_kept_and_the_evaluations_are_counted(flow):
    velocity = count_evaluations(MIXTURE.velocity_under(flow))
    found = solve("dopri5_each", velocity, starts(flow), time_grid(flow, 2))
    exact = solve("rk4", MIXTURE.velocity_under(flow), starts(flow), time_grid(flow, 800))
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)
    assert velocity.count % 6 == 1  # six a step, and one at the start
    assert steps_for("dopri5_each", "auto") == "auto"


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_sample_does_not_depend_on_its_batch(flow):
    """Alone, in two halves, and beside a stiff neighbour: the same to the last bits; `dopri5` moves all by what one needs."""
    velocity, x, times = MIXTURE.velocity_under(flow), starts(flow, 12), time_grid(flow, 2)
    together = solve("dopri5_each", velocity, x, times)
    alone = torch.cat([solve("dopri5_each", velocity, row[None], times) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    shared = solve("dopri5", velocity, x, times)
    others = torch.cat([solve("dopri5", velocity, row[None], times) for row in x])
    assert float((shared - others).abs().max()) > 1e-9


def test_each_sample_has_the_steps_that_it_needs():
    """x' = -r x over a time of 2, backwards: x_0 = x_2 e^(2 r) for rates r that differ by a factor of fifty."""
    rates = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    x = torch.stack([torch.ones_like(rates), rates], 1)
    found = solve("dopri5_each", stiff, x, ENDS)
    torch.testing.assert_close(found[:, 0], (2 * rates).exp(), rtol=1e-3, atol=0)
    costs = []
    for row in x:
        counted = count_evaluations(stiff)
        solve("dopri5_each", counted, row[None], ENDS)
        costs.append(counted.count)
    together = count_evaluations(stiff)
    solve("dopri5_each", together, x, ENDS)
    assert costs[0] < costs[2] == together.count == max(costs)


def test_log_densities_have_their_own_steps_too():
    x = MIXTURE.sample(20, np.random.default_rng(2))
    found = log_density(MIXTURE.velocity_under(FLOWS[1]), FLOWS[1], x, sampler="dopri5_each")
    torch.testing.assert_close(found.values, MIXTURE.log_prob(x), rtol=0, atol=1e-2)
    alone = log_density(MIXTURE.velocity_under(FLOWS[1]), FLOWS[1], x[:1], sampler="dopri5_each")
    torch.testing.assert_close(alone.values, found.values[:1], rtol=0, atol=1e-10)


def test_there_and_back_again():
    """Within the tolerance of 1e-5 on each way."""
    flow = FLOWS[1]
    x, velocity, times = MIXTURE.sample(20, np.random.default_rng(1)), MIXTURE.velocity_under(FLOWS[1]), time_grid(flow, 2)
    noise = solve("dopri5_each", velocity, x, times.flip(0))
    torch.testing.assert_close(solve("dopri5_each", velocity, noise, times), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("field", [lambda x, t: x * float("nan"), lambda x, t: 1e300 * x.abs() ** 3])
def test_a_field_that_is_none_is_a_paragraph(field):
    with pytest.raises(DivergenceError, match="short enough"):
        solve("dopri5_each", field, torch.ones(2, 1), ENDS)


def test_nothing_to_do():
    assert solve("dopri5_each", stiff, torch.zeros(0, 2), ENDS).shape == (0, 2)


def test_torchode_agrees():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchode = pytest.importorskip("torchode")
    flow = FLOWS[1]
    velocity, x = MIXTURE.velocity_under(flow), starts(flow, 10)
    term = torchode.ODETerm(lambda t, y: velocity(y, t))
    controller = torchode.IntegralController(1e-5, 1e-5, term=term)
    ends = torch.tensor([[flow.horizon, 0.0]], dtype=torch.float64).expand(len(x), 2)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
    theirs = solver.solve(torchode.InitialValueProblem(y0=x, t_eval=ends)).ys[:, -1]
    found = solve("dopri5_each", velocity, x, time_grid(flow, 2))
    torch.testing.assert_close(found, theirs, rtol=0, atol=2e-3)
