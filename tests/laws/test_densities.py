"""The exact laws of the 2-D data: every source that has a density is tested, whoever adds it."""

import math

import numpy as np
import pytest
import torch

from hamflow import data
from hamflow.draws import generator

SOURCES = {name: data.build(name) for name in data.names() if name != "images"}  # which are somebody's files
WITH_DENSITY = sorted(name for name, source in SOURCES.items() if source.density)


@pytest.fixture(params=WITH_DENSITY)
def source(request):
    return SOURCES[request.param]


def midpoints(low: float, high: float, n: int) -> tuple[torch.Tensor, float]:
    """Centres of n x n equal cells of a square, [n^2, 2], and the area of one."""
    step = (high - low) / n
    axis = low + step * (torch.arange(n, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(axis, axis), step**2


def expectation(source, function) -> torch.Tensor:
    """E f(x) by the midpoint rule over the source's box."""
    x, area = midpoints(*source.box, 1000)
    values = function(x)
    weights = source.density.log_prob(x).exp() * area
    return weights @ values.double()


def test_density_integrates_to_one(source):
    mass = expectation(source, lambda x: torch.ones(len(x)))
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_score_is_the_gradient_of_the_log_density(source):
    x = source.density.sample(500, generator(0, "test")).requires_grad_()
    log_prob = source.density.log_prob(x) + 0 * x.sum(1)  # a constant density has no graph of its own
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    torch.testing.assert_close(source.density.score(x.detach()), gradient, rtol=1e-9, atol=1e-9)


def test_mean_score_is_zero_where_the_density_has_no_edge(source):
    x = source.density.sample(20000, generator(0, "test"))
    score = source.density.score(x)
    standard_error = score.std(0) / math.sqrt(len(x))
    assert (score.mean(0).abs() <= 4.5 * standard_error).all()


@pytest.mark.parametrize("power", [1, 2, 4])
def test_moments_of_the_samples_are_those_of_the_density(source, power):
    x = source.density.sample(100_000, generator(power, "test")) ** power
    exact = torch.stack([expectation(source, lambda y, i=i: y[:, i] ** power) for i in range(2)])
    assert ((x.mean(0) - exact).abs() <= 4.5 * x.std(0) / math.sqrt(len(x))).all()


def test_samples_have_the_density_s_entropy(source):
    def surprise(x):
        return -source.density.log_prob(x).clamp(min=-700)

    values = surprise(source.density.sample(100_000, generator(0, "test")))
    error = abs(values.mean() - expectation(source, surprise))
    assert error <= 4.5 * values.std() / math.sqrt(len(values)) + 1e-6


def test_samples_lie_on_the_support(source):
    density = source.density
    x = density.sample(10_000, generator(0, "test"))
    assert density.support(x).all()
    assert density.log_prob(x).isfinite().all()


def test_off_the_support_the_density_is_zero(source):
    x, _ = midpoints(*source.box, 101)
    inside = source.density.support(x)
    assert source.density.bounded == (not inside.all())
    assert torch.equal(source.density.log_prob(x) == -math.inf, ~inside)
    assert torch.equal(source.density.score(x).isnan().any(1), ~inside)


def test_entropy_of_the_default_rings_is_the_known_floor():
    rings = SOURCES["rings"]
    entropy = expectation(rings, lambda x: -rings.density.log_prob(x))
    assert entropy.item() == pytest.approx(3.03367, abs=5e-6)  # theory 8.2


def test_entropy_of_a_single_ring_is_the_known_floor():
    ring = data.build("rings", {"radii": [2.0], "sd": 0.2})
    entropy = expectation(ring, lambda x: -ring.density.log_prob(x))
    assert entropy.item() == pytest.approx(2.34052, abs=5e-6)  # theory 8.2


def test_rings_have_equal_peaks():
    radius = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-3.0, 0.0]], dtype=torch.float64)
    log_prob = SOURCES["rings"].density.log_prob(radius)
    assert torch.allclose(log_prob, log_prob[:1].expand(3), rtol=0, atol=1e-12)


def test_rings_are_invariant_under_rotation():
    density = SOURCES["rings"].density
    x = density.sample(200, generator(0, "test"))
    c, s = math.cos(0.7), math.sin(0.7)
    rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    torch.testing.assert_close(density.log_prob(x @ rotation.T), density.log_prob(x))
    torch.testing.assert_close(density.score(x @ rotation.T), density.score(x) @ rotation.T)


def test_checkerboard_is_uniform_on_half_of_the_box():
    density = SOURCES["checkerboard"].density
    x, _ = midpoints(-2, 2, 40)
    assert density.support(x).double().mean() == 0.5
    assert torch.unique(density.log_prob(x[density.support(x)])).tolist() == [-math.log(8)]


def test_checkerboard_neighbours_differ():
    density = SOURCES["checkerboard"].density
    x, _ = midpoints(-2, 1, 30)
    for step in ([1, 0], [0, 1]):
        assert torch.equal(density.support(x + torch.tensor(step)), ~density.support(x))
    assert torch.equal(density.support(x + 1), density.support(x))


def test_checkerboard_points_survive_rounding_to_float32():
    density = SOURCES["checkerboard"].density
    x = density.sample(10_000, generator(0, "test"))
    assert torch.equal(x.float().double(), x)


def test_walls_of_the_box_belong_to_the_checkerboard():
    density = SOURCES["checkerboard"].density
    corners = torch.tensor([[2.0, 2.0], [-2.0, -2.0], [2.0, 1.5], [2.0, 0.5]])
    assert density.support(corners).tolist() == [True, True, True, False]
    assert not density.support(torch.tensor([[2.0001, 1.5], [math.nan, 0.0], [math.inf, 0.0]])).any()


def test_a_mixture_of_given_parameters_has_their_mean():
    source = data.build("gaussian_mixture", {"means": [[2, 0], [0, 4]], "sds": [0.1, 0.2], "weights": [0.25, 0.75]})
    x = source.density.sample(50_000, generator(0, "test"))
    assert np.allclose(x.mean(0), [0.5, 3.0], atol=4.5 * x.std(0).max() / math.sqrt(len(x)))


def test_wide_rings_are_sampled_exactly():
    """sd = radius, where the acceptance step does most of its work: E|x| and E|x|^2 against the density's."""
    law = data.build("rings", {"radii": [1.0], "sd": 1.0})
    norm = law.density.sample(100_000, generator(0, "test")).norm(dim=1)
    for power in (1, 2):
        exact = expectation(law, lambda x, p=power: x.norm(dim=1) ** p)
        assert abs((norm**power).mean() - exact) <= 4.5 * (norm**power).std() / math.sqrt(len(norm))
