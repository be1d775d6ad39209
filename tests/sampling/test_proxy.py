"""Errors on the exact velocity of fitted mixtures: one Gaussian in closed form, orders, and flows that have none."""

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.sampling import time_grid
from hamflow.sampling.proxy import Proxy, ProxySpec

D = 3
ONE = ProxySpec(components=1, fits=2, starts=20, ridge=0.01)


@pytest.fixture(scope="module")
def x():
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.standard_normal((400, D)) @ generator.standard_normal((D, D)) + 1)


def error(field, sampler, steps, grid="uniform"):
    return float(field.errors(sampler, time_grid(field.flow, steps, grid)).mean())


def test_gaussian_data_under_noise_of_their_own_colour_stay_where_they_are(x):
    centred = x - x.mean(0)
    spread = float(centred.square().mean().sqrt())
    for field in Proxy(centred, ONE).fields(flows.build("oscillation_coloured", colour=1.0, alpha=1 / spread)):
        ridged = spread * 1.01**0.5  # the mixture has the ridge, the noise is scaled to unit variance
        assert field.transport == pytest.approx((1 - 1 / 1.01**0.5) ** 2, abs=1e-3)
        assert error(field, "euler", 1) < 0.01 * ridged


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_noise_has_unit_mean_variance(x, power):
    root = Proxy(x, ONE)._root(flows.build("oscillation_coloured", colour=power, ridge=0.0))
    assert float((root @ root).diagonal().mean()) == pytest.approx(1, abs=1e-12)
    covariance = torch.from_numpy(np.cov(x.numpy().T, bias=True))
    assert float((root @ covariance - covariance @ root).abs().max()) < 1e-12


def test_the_ends_of_gaussian_data_are_the_quantile_map(x):
    """x_0 = m + S^1/2 n for x_T = n / alpha of the oscillation."""
    proxy = Proxy(x, ONE)
    flow = flows.build("oscillation", alpha=0.7)
    covariance = torch.from_numpy(np.cov(x.numpy().T, bias=True)) + 0.01 * float(x.var(0, correction=0).mean()) * torch.eye(D)
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.sqrt() @ vectors.T
    for field in proxy.fields(flow):
        noise = field.starts * flow.alpha
        torch.testing.assert_close(field.ends, x.mean(0) + noise @ root, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_errors_fall_with_the_order_of_the_sampler(x, sampler, order):
    spec = ProxySpec(components=4, fits=1, starts=20, precise=200)
    field = next(Proxy(x, spec).fields(flows.build("oscillation_coloured", colour=0.4, alpha=0.5)))
    ratio = error(field, sampler, 64) / error(field, sampler, 128)
    assert ratio == pytest.approx(2**order, rel=0.2)


def test_other_fits_have_other_starts_and_equal_numbers_the_same(x):
    spec = ProxySpec(components=4, fits=2, starts=5)
    first, second = Proxy(x, spec, seed=3).fields(flows.build("oscillation"))
    (again,) = Proxy(x, ProxySpec(components=4, fits=1, starts=5), seed=3, first=1).fields(flows.build("oscillation"))
    assert torch.equal(second.starts, again.starts)
    assert torch.equal(second.ends, again.ends)
    assert not torch.equal(first.starts, second.starts)


def test_what_has_no_exact_velocity_is_refused(x):
    with pytest.raises(NotOffered, match="not normal"):
        Proxy(x, ONE).fields(flows.build("pfgm"))
    with pytest.raises(ConfigurationError, match="at least 40"):
        Proxy(x[:39], ProxySpec())
    with pytest.raises(ConfigurationError, match="at most 1024"):
        Proxy(torch.zeros(40, 3, 32, 32), ProxySpec())
