"""LSGM's importance-sampled times: their densities, and that they leave the weighted loss as it is."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from hamflow import draws, flows
from hamflow.flows.importance import EARLIEST, HIGH, IMPORTANCE, LOW
from hamflow.flows.times import draw_times
from hamflow.flows.vp import time_of


def beta(s):
    return 0.1 + 19.9 * s


def share(s):
    """s^2, the variance of the noise at a time of the SDE."""
    return -math.expm1(-(0.1 * s + 19.9 * s**2 / 2))


WEIGHTS = {"likelihood": lambda s: beta(s) / (2 * share(s)), "unweighted": lambda s: 1.0, "variance": lambda s: beta(s) / 2}


def density(name, s):
    """Of the time of the SDE: proportional to (1 - s^2) w(s)."""
    return (1 - share(s)) * WEIGHTS[name](s) / IMPORTANCE[name].constant


def test_the_ends_are_those_of_the_sde():
    assert (share(EARLIEST), share(1.0)) == pytest.approx((LOW, HIGH), rel=1e-12)


@pytest.mark.parametrize("name", IMPORTANCE)
def test_densities_match_histograms(name):
    """Chi-square of 20,000 independent times in 20 cells."""
    u = torch.from_numpy(draws.generator(0, "importance", name).random(20_000))
    s = time_of(IMPORTANCE[name].sigma(u)).numpy()
    assert s.min() >= EARLIEST - 1e-9
    assert s.max() <= 1 + 1e-6
    edges = np.linspace(EARLIEST, 1, 21)
    expected = [integrate.quad(lambda s: density(name, s), *pair)[0] for pair in pairwise(edges)]
    assert sum(expected) == pytest.approx(1, abs=1e-9)
    found = np.histogram(s, edges)[0]
    assert stats.chisquare(found, np.array(expected) / sum(expected) * found.sum()).pvalue > 0.01


@pytest.mark.parametrize("name", IMPORTANCE)
def test_importance_leaves_the_expected_weighted_loss_unchanged(name):
    """The mean of c (1 + sigma^2) l(s) over drawn times is int w l ds, within two standard errors, for a loss l like that of
    the noise: at the latest times the noise is all there is to see."""

    def loss(s):
        return math.exp(-(0.1 * s + 19.9 * s**2 / 2)) * (1.3 + math.sin(5 * s))

    law = IMPORTANCE[name]
    sigma = law.sigma(torch.from_numpy(draws.generator(1, "importance", name).random(20_000)))
    values = law.constant * (1 + sigma.numpy() ** 2) * np.vectorize(loss)(time_of(sigma).numpy())
    exact = integrate.quad(lambda s: WEIGHTS[name](s) * loss(s), EARLIEST, 1)[0]
    assert abs(values.mean() - exact) < 2 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("name", IMPORTANCE)
@pytest.mark.parametrize("kind", ["oscillation", "diffusion", "flow_matching"])
def test_a_law_of_that_name_gives_its_noise_levels_to_every_flow(kind, name):
    flow, u = flows.build(kind), torch.linspace(0.01, 0.5, 50, dtype=torch.float64)
    t = draw_times({"law": f"importance_{name}"}, flow, u)
    torch.testing.assert_close(flow.sigma(t), IMPORTANCE[name].sigma(u), rtol=1e-9, atol=0)


def test_the_path_of_the_variance_preserving_sde_is_the_oscillation_of_unit_frequency():
    """x_s = sqrt(1 - s^2) x_0 + s n is cos t x_0 + sin t n at the time of equal noise-to-signal ratio."""
    flow, u = flows.build("oscillation", alpha=1.0), torch.linspace(0.01, 0.99, 30, dtype=torch.float64)
    sigma = IMPORTANCE["variance"].sigma(u)
    s2 = LOW + (HIGH - LOW) * u
    a, b, _, _ = flow.coefficients(flow.time(sigma))
    torch.testing.assert_close(a, (1 - s2).sqrt())
    torch.testing.assert_close(b, s2.sqrt())
