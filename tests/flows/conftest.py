"""Every registered flow, on data whose optimal velocity has a closed form."""

import pytest
import torch

from hamflow import flows
from hamflow.laws.mixtures import GaussianMixture
from hamflow.training.fit import Samples

OPTIONS = {
    "diffusion": [{"horizon": 80.0}],
    "oscillation": [{"alpha": 1.0}, {"alpha": 1.7}],
    "oscillation_coloured": [{"colour": 0.7, "alpha": 1.7}],
    "pfgm": [{"degrees": 1.0}, {"degrees": 3.0}, {"degrees": "infinity"}],
    "oscillation_student": [{"degrees": 3.0, "alpha": 1.7}],
    "reflection": [{"low": -2.0, "high": 3.0, "speed": 1.5}],
}


def every_flow(dimension=2):
    """All flows by registration: a new one is tested without a line here. Those that measure data know stretched ones."""
    found = [flows.build(name, **options) for name in flows.names() for options in OPTIONS.get(name, [{}])]
    x = torch.randn(100, dimension, generator=torch.Generator().manual_seed(1)) @ torch.ones(dimension, dimension).tril()
    for flow in found:
        flow.for_shape((dimension,)).measure(Samples(x))
    return found


def linear_flows():
    return [flow for flow in every_flow(1) if isinstance(flow, flows.LinearFlow)]


def gaussian_flows():
    return [flow for flow in every_flow(1) if isinstance(flow, flows.GaussianFlow)]


def identify(flow):
    return "-".join([flow.name, *(f"{key}{value}" for key, value in flow.options.items())])


def pytest_generate_tests(metafunc):
    if "flow" in metafunc.fixturenames:
        metafunc.parametrize("flow", every_flow(), ids=identify)
    if "linear" in metafunc.fixturenames:
        metafunc.parametrize("linear", linear_flows(), ids=identify)
    if "gaussian" in metafunc.fixturenames:
        metafunc.parametrize("gaussian", gaussian_flows(), ids=identify)


@pytest.fixture
def mixture():
    return GaussianMixture([0.4, 0.6], [-2.0, 2.0], [1.0, 0.7])


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(2)
    return torch.rand(400, 2, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(400, 2, generator=generator, dtype=torch.float64)
