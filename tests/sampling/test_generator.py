"""A trained field's generator: learned solver and likelihood, through its own methods."""

import pytest
import torch

from hamflow.errors import ConfigurationError
from hamflow.methods import METHODS, Facts
from hamflow.methods.solver import learn
from hamflow.sampling.teleportation import Teleport


@pytest.fixture(scope="module")
def generator():
    facts = Facts(
        name="points", shape=(2,), classes=0, sigma_data=1.0, box=(-3.0, 3.0), network={"kind": "mlp", "width": 16, "depth": 1}
    )
    options = {"flow": {"name": "oscillation"}, "parameterisation": "velocity", "times": {"law": "uniform"}}
    method = METHODS.build("velocity", **options)
    return method.generator(method.objective(facts, {}, 0).requires_grad_(False).eval())


def test_bns_spends_what_was_asked_and_is_refused_otherwise(generator):
    with pytest.raises(ConfigurationError, match="none"):
        generator.sample(range(3), "bns", 3)
    generator.solver = learn(generator.velocity, generator.flow, torch.randn(16, 2), 3, steps=2, precise=4)
    samples, spent = generator.sample(range(3), "bns", 3)
    assert (samples.shape, spent) == ((3, 2), 3)
    assert bool(samples.isfinite().all())
    with pytest.raises(ConfigurationError, match="nfe = 4"):
        generator.sample(range(3), "bns", 4)


def test_samplers_in_the_denoiser_reach_it_too(generator):
    precise, _ = generator.sample(range(5), "rk4", 400)
    for sampler in ("dpmpp_2m", "dpmpp_3m", "unipc", "ipndm"):
        samples, spent = generator.sample(range(5), sampler, 200)
        assert spent == 200
        torch.testing.assert_close(samples, precise, rtol=0, atol=0.02)


def test_steps_of_one_s_own_do_not_depend_on_the_batch(generator):
    """The network sees a time for each sample; its float32 alone may differ from batch to batch."""
    precise, _ = generator.sample(range(6), "rk4", 400)
    samples, spent = generator.sample(range(6), "dopri5_each", "auto")
    alone, least = generator.sample(range(4, 6), "dopri5_each", "auto")
    torch.testing.assert_close(samples, precise, rtol=0, atol=1e-3)
    torch.testing.assert_close(samples[4:], alone, rtol=0, atol=1e-4)
    assert 6 < least <= spent


def test_its_density_is_one_in_all(generator):
    """A sum of exp(log p) over a lattice that holds nearly all of the mass."""
    side = torch.linspace(-6, 6, 61, dtype=torch.float64)
    x = torch.cartesian_prod(side, side)
    found = generator.log_density(x, steps=20)
    assert float(found.values.exp().sum() * (side[1] - side[0]) ** 2) == pytest.approx(1, abs=0.02)


def test_a_teleported_start_costs_nothing_and_shortens_the_way(generator):
    precise, _ = generator.sample(range(5), "rk4", 400)
    with pytest.raises(ConfigurationError, match="mean and covariance"):
        generator.sample(range(5), "teleported_multistep", 7)
    generator.teleport = Teleport.of(torch.randn(400, 2), 50.0)
    try:
        samples, spent = generator.sample(range(5), "teleported_multistep", 7)
        near, _ = generator.sample(range(5), "teleported_rk4", 400)
    finally:
        generator.teleport = None
    assert spent == 7
    assert not torch.equal(samples, precise)
    torch.testing.assert_close(near, precise, rtol=0, atol=0.1)  # 50 is nearly pure noise: hardly anything was left out
