"""The moving average of the weights."""

import math

import pytest
import torch

from hamflow.training.ema import ExponentialMovingAverage


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
