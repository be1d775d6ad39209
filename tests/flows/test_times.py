"""The laws of the training times."""

import math

import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError
from hamflow.flows.times import draw_times
from hamflow.flows.vp import sigma_at, time_of

LAWS = [
    ({"law": "uniform"}, lambda flow, t: t / flow.horizon),
    (
        {"law": "log_normal", "mean": -1.2, "std": 1.2},
        lambda flow, t: torch.special.ndtr((flow.sigma(t).log() + 1.2) / 1.2),
    ),
    ({"law": "log_uniform", "decades": 2.0}, lambda flow, t: 1 + torch.log10(t / flow.horizon) / 2),
    (
        {"law": "log_uniform_sigma", "low": 0.02, "high": 5.0},
        lambda flow, t: (flow.sigma(t).log() - math.log(0.02)) / math.log(250),
    ),
    ({"law": "vp"}, lambda flow, t: (time_of(flow.sigma(t)) - 1e-5) / (1 - 1e-5)),
]


@pytest.mark.parametrize(("entry", "cdf"), LAWS, ids=lambda value: value["law"] if isinstance(value, dict) else "")
@pytest.mark.parametrize("name", flows.names())
def test_times_follow_their_law(name, entry, cdf):
    flow = flows.build(name)
    u = torch.linspace(0.01, 0.9, 50, dtype=torch.float64)
    t = draw_times(entry, flow, u)
    inside = t < flow.horizon * (1 - 1e-9)
    assert int(inside.sum()) >= (25 if flow.name == "reflection" else 45)  # a box of width 2 ends at sigma = 3
    torch.testing.assert_close(cdf(flow, t)[inside], u[inside], rtol=1e-9, atol=1e-9)
    assert bool((t <= flow.horizon).all())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"law": "lognormal"}, "Did you mean 'log_normal'"),
        ({"law": "log_normal", "mean": 0.0, "std": 0.0}, "Expected float > 0"),
        ({"law": "log_uniform_sigma", "low": 90.0}, "need low < high < infinity, got low = 90.0, high = 80.0"),
        ({"law": "log_normal", "maen": 0.0, "std": 1.0}, "Did you mean 'mean'"),
    ],
)
def test_impossible_time_laws_are_refused(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        draw_times(entry, flows.build("diffusion"), torch.rand(3))


def test_the_noise_of_the_variance_preserving_sde_solves_its_equation():
    """d ln(1 + sigma^2) / ds = beta(s) = .1 + 19.9 s, from no noise, by Simpson's rule; and `time_of` is the inverse."""
    s = torch.linspace(0, 1, 101, dtype=torch.float64)
    level = torch.log1p(sigma_at(s).square())
    beta = 0.1 + 19.9 * s
    integral = (beta[:-2:2] + 4 * beta[1::2] + beta[2::2]) / 300
    torch.testing.assert_close(level[2::2] - level[:-2:2], integral, rtol=1e-10, atol=0)
    torch.testing.assert_close(time_of(sigma_at(s)), s, rtol=1e-10, atol=0)
    ends = sigma_at(torch.tensor([1e-5, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0.0010005, 152.167], rel=1e-4)


def test_times_may_go_beyond_the_horizon_where_the_flow_says_so():
    u = torch.tensor([0.5, 0.999], dtype=torch.float64)
    short, long = (flows.build("diffusion", horizon=20.0, latest=latest) for latest in (None, 153.0))
    assert draw_times({"law": "vp"}, short, u)[1] == 20
    assert draw_times({"law": "vp"}, long, u)[1] > 100
    assert short.horizon == long.horizon == 20


def test_the_noise_levels_end_at_the_horizon_unless_told():
    flow = flows.build("reflection", low=-2.0, high=2.0, speed=0.5)
    t = draw_times({"law": "log_uniform_sigma", "low": 0.02}, flow, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert flow.sigma(t).tolist() == pytest.approx([0.02, math.sqrt(0.02 * 6), 6.0])
    with pytest.raises(ConfigurationError, match="high = inf"):
        draw_times({"law": "log_uniform_sigma", "low": 0.02}, flows.build("flow_matching"), t)
