"""Draws, time laws, the moving average, the learning rate: as functions."""

import math

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError
from hamflow.flows.times import draw_times
from hamflow.training.draws import data_order, draw_step
from hamflow.training.ema import ExponentialMovingAverage


def test_the_data_order_is_one_permutation_after_the_other():
    order = data_order(0, 0, 30, 10)
    assert [sorted(order[i : i + 10]) for i in (0, 10, 20)] == [list(range(10))] * 3
    assert not np.array_equal(order[:10], order[10:20])


def test_the_data_order_may_be_asked_for_in_any_pieces():
    whole = data_order(4, 0, 95, 10)
    assert np.array_equal(np.concatenate([data_order(4, k, 19, 10) for k in range(0, 95, 19)]), whole)
    assert np.array_equal(data_order(4, 33, 5, 10), whole[33:38])
    assert not np.array_equal(data_order(5, 0, 95, 10), whole)


def test_draws_are_a_function_of_seed_and_step():
    first, again = draw_step(1, 7, 16, 100, (3,)), draw_step(1, 7, 16, 100, (3,))
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.u, again.u)
    assert first.dropout_seed == again.dropout_seed
    for other in (draw_step(1, 8, 16, 100, (3,)), draw_step(2, 7, 16, 100, (3,))):
        assert not torch.equal(first.noise, other.noise)
        assert first.dropout_seed != other.dropout_seed


def test_times_are_stratified():
    u = draw_step(0, 0, 64, 100, (1,)).u
    assert sorted((u * 64).floor().long().tolist()) == list(range(64))
    assert u.tolist() != sorted(u.tolist())
    assert float(u.min()) > 0
    assert float(u.max()) < 1


LAWS = [
    ({"law": "uniform"}, lambda flow, t: t / flow.horizon),
    (
        {"law": "log_normal", "mean": -1.2, "std": 1.2},
        lambda flow, t: torch.special.ndtr((flow.sigma(t).log() + 1.2) / 1.2),
    ),
    ({"law": "log_uniform", "decades": 2.0}, lambda flow, t: 1 + torch.log10(t / flow.horizon) / 2),
]


@pytest.mark.parametrize(("entry", "cdf"), LAWS, ids=lambda value: value["law"] if isinstance(value, dict) else "")
@pytest.mark.parametrize("name", flows.names())
def test_times_follow_their_law(name, entry, cdf):
    flow = flows.build(name)
    u = torch.linspace(0.01, 0.9, 50, dtype=torch.float64)
    t = draw_times(entry, flow, u)
    inside = t < flow.horizon * (1 - 1e-9)
    assert int(inside.sum()) >= 45
    torch.testing.assert_close(cdf(flow, t)[inside], u[inside], rtol=1e-9, atol=1e-9)
    assert bool((t <= flow.horizon).all())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"law": "lognormal"}, "Did you mean 'log_normal'"),
        ({"law": "log_normal", "mean": 0.0, "std": 0.0}, "must be > 0"),
        ({"law": "log_normal", "maen": 0.0, "std": 1.0}, "Did you mean 'mean'"),
    ],
)
def test_impossible_time_laws_are_refused(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        draw_times(entry, flows.build("diffusion"), torch.rand(3))


def test_the_average_halves_in_its_half_life():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    average = ExponentialMovingAverage(network, halflife=1000, rampup=1e9)
    torch.nn.init.zeros_(network.weight)
    for step in range(1, 101):
        average.update(network, step * 10, 10)
    assert average.network.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_the_average_forgets_its_start():
    """With ramp-up r the weight of the start after n images is at most (batch / n)^(ln 2 / r)-like: gone."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = ExponentialMovingAverage(network, halflife=1e9, rampup=0.05)
    start = average.network.weight.item()
    torch.nn.init.constant_(network.weight, 5.0)
    for step in range(1, 51):
        average.update(network, step * 10, 10)
    assert average.network.weight.item() == pytest.approx(5.0, abs=1e-5 * abs(start - 5))
    assert math.isfinite(start)
