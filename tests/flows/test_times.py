"""The laws of the training times."""

import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError
from hamflow.flows.times import draw_times

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
        ({"law": "log_normal", "mean": 0.0, "std": 0.0}, "Expected float > 0"),
        ({"law": "log_normal", "maen": 0.0, "std": 1.0}, "Did you mean 'mean'"),
    ],
)
def test_impossible_time_laws_are_refused(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        draw_times(entry, flows.build("diffusion"), torch.rand(3))
