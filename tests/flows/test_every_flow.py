"""What every Hamiltonian generative flow owes, whatever its force."""

import pytest
import torch
from scipy.stats import ks_2samp

from hamflow import flows
from hamflow.draws import BatchDraws
from hamflow.dynamics import simulate
from hamflow.errors import ConfigurationError


def times_of(flow, count):
    return torch.linspace(0, 1, count, dtype=torch.float64) * flow.horizon


def test_pushing_starts_at_the_data(flow, data, noise):
    v0 = flow.couple(data, noise)
    torch.testing.assert_close(flow.push(data, v0, 0.0), (data, v0))


def test_pushing_is_the_motion_under_the_flows_force(flow, data, noise):
    v0, t = flow.couple(data, noise), 0.6 * flow.horizon
    moved = simulate(flow.confine(flow.force), data, v0, t, 4000, "yoshida4")
    torch.testing.assert_close(flow.push(data, v0, t), moved, rtol=0, atol=1e-9)


def test_pushing_back_with_reversed_velocity_returns_home(flow, data, noise):
    v0, t = flow.couple(data, noise), times_of(flow, len(data))
    x_t, v_t = flow.push(data, v0, t)
    x_back, v_back = flow.push(x_t, -v_t, t)
    torch.testing.assert_close((x_back, -v_back), (data, v0), rtol=0, atol=1e-11)


def test_pushing_composes(flow, data, noise):
    v0, half = flow.couple(data, noise), 0.5 * flow.horizon
    torch.testing.assert_close(
        flow.push(*flow.push(data, v0, half), half), flow.push(data, v0, flow.horizon), rtol=0, atol=1e-11
    )


def test_the_velocity_is_the_rate_of_the_position(flow, data, noise):
    v0, t, h = flow.couple(data, noise), 0.37 * flow.horizon, 1e-6 * flow.horizon
    ahead, behind = (flow.push(data, v0, t + sign * h)[0] for sign in (1, -1))
    v_t = flow.push(data, v0, t)[1]
    rate = (ahead - behind) / (2 * h)
    smooth = (rate.abs() - v_t.abs()).abs() < 1e-6  # a wall hit between t - h and t + h turns the velocity round
    assert int((~smooth).sum()) <= 2
    torch.testing.assert_close(rate[smooth], v_t[smooth], rtol=0, atol=1e-6)


def test_the_terminal_law_is_that_of_pushed_data(flow, data):
    """x_T against the law that samplers start from: coordinates, norms and a difference, by Kolmogorov's distance."""
    n = 200_000
    x0 = data[torch.randint(len(data), (n,), generator=torch.Generator().manual_seed(4))]
    first, second = (flow.noise(BatchDraws(seed, batch=n), (2,)).double() for seed in (4, 5))
    x_T, _ = flow.push(x0, flow.couple(x0, first), flow.horizon)
    start = flow.terminal(second)
    for view in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.norm(dim=1), lambda x: x[:, 0] - x[:, 1]):
        assert ks_2samp(view(x_T), view(start)).pvalue > 0.001


def test_sigma_and_time_are_inverse_and_increasing(flow):
    t = times_of(flow, 50)[1:-1]
    sigma = flow.sigma(t)
    assert bool((sigma.diff() > 0).all())
    torch.testing.assert_close(flow.time(sigma), t, rtol=1e-12, atol=0)
    assert float(flow.sigma(torch.zeros(1))) == 0


def test_what_the_network_sees_has_about_unit_spread(flow, noise):
    generator = torch.Generator().manual_seed(5)
    x0 = 0.5 * torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    v0 = flow.couple(x0, flow.noise(BatchDraws(5, batch=20_000), (2,)).double())
    for t in times_of(flow, 5):
        seen = flow.standardise(flow.push(x0, v0, t)[0], t, 0.5)
        assert 0.3 < float(seen.std()) < 1.1


def test_settling_is_idempotent_and_unfolding_agrees_inside(flow, noise):
    settled = flow.settle(10 * noise)
    torch.testing.assert_close(flow.settle(settled), settled)

    def velocity(x, t):
        return torch.sin(x) * t

    torch.testing.assert_close(flow.unfold(velocity)(settled, 2.0), velocity(settled, 2.0))


def test_options_rebuild_the_flow(flow):
    again = flows.build(flow.name, **flow.options)
    assert (again.options, again.horizon) == (flow.options, flow.horizon)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "oscilation"}, "Did you mean 'oscillation'"),
        ({"name": "oscillation", "alpa": 1.0}, "Did you mean 'alpha'"),
        ({"name": "oscillation", "alpha": 0.0}, "`oscillation.alpha` = 0.0: Expected float > 0"),
        ({"name": "diffusion", "horizon": "long"}, "`diffusion.horizon` = 'long': Expected float"),
        ({"name": "pfgm", "degrees": 0.0}, "`pfgm.degrees` = 0.0: Expected float > 0"),
        ({"name": "pfgm", "degrees": -3}, "`pfgm.degrees` = -3: Expected"),
        ({"name": "pfgm", "degrees": "infinite"}, "Did you mean 'infinity'"),
        ({"name": "reflection", "low": -0.5, "high": 0.5}, "does not contain the data"),
        ({"name": "reflection", "speed": -1.0}, "`reflection.speed` = -1.0: Expected float > 0"),
    ],
)
def test_an_impossible_entry_is_refused_and_says_why(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        flows.resolve(entry, sigma_data=0.5, box=(-1.0, 1.0))


def test_auto_values_come_from_the_data():
    assert flows.resolve({"name": "oscillation", "alpha": "auto"}, 0.5, (-1, 1)).alpha == 2.0
    box = flows.resolve({"name": "reflection", "horizon": "auto", "speed": 2.0}, 0.5, (-3.0, 1.0))
    assert (box.low, box.high, box.horizon) == (-3.0, 1.0, 3.0)


def test_a_box_is_widened_about_its_middle():
    box = flows.resolve({"name": "reflection", "horizon": "auto", "speed": 2.0, "widen": 2.0}, 0.5, (-3.0, 1.0))
    assert (box.low, box.high, box.horizon) == (-5.0, 3.0, 6.0)
    assert flows.build("reflection", **box.options).options == box.options
    with pytest.raises(ConfigurationError, match="widen"):
        flows.build("reflection", widen=0.5)
