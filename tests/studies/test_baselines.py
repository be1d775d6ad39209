"""Flows of zuko beside Hamiltonian ones: as many weights, exact densities, and their absence."""

import math
import sys

import pytest
import torch

from hamflow.errors import ConfigurationError
from hamflow.methods.base import Facts
from hamflow.studies.baselines import Baseline, _size

FACTS = Facts(name="rings", shape=(2,), classes=0, sigma_data=1.7, box=(-1.0, 1.0), network={})
OTHERS = ["realnvp", "spline", "continuous"]


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize("weights", [2_000, 25_000])
def test_a_baseline_has_as_many_weights(model, weights):
    assert _size(Baseline(model, weights).objective(FACTS, {}, 0)) == pytest.approx(weights, rel=0.1)


@pytest.mark.parametrize("model", OTHERS)
def test_the_density_of_a_baseline_integrates_to_one(model):
    """In data units: the Jacobian of the unit is in it."""
    density = Baseline(model, 1000).objective(FACTS, {}, 0)
    axis = torch.linspace(-12, 12, 161)
    grid = torch.cartesian_prod(axis, axis)
    mass = density.log_density(grid).exp().sum() * float(axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=2e-3)


def test_initial_weights_are_of_the_seed():
    one, same, other = (Baseline("realnvp", 1000).objective(FACTS, {}, seed) for seed in (0, 0, 1))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.log_density(x), same.log_density(x))
    assert not torch.equal(one.log_density(x), other.log_density(x))
    assert math.isfinite(float(one.log_density(x).sum()))


def test_without_zuko_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ConfigurationError, match="zuko is not installed") as refused:
        Baseline("spline", 1000).objective(FACTS, {}, 0)
    assert "hamflow[baselines]" in refused.value.fix
