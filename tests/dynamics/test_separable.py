"""Integration of any K(p) + U(q): the case K = |p|^2 / 2 is the other integrator."""

import pytest
import torch

from hamflow.dynamics import SCHEMES, simulate
from hamflow.dynamics.separable import trajectory
from hamflow.errors import ConfigurationError

PRECISE = {"rtol": 0, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_with_the_kinetic_energy_of_newton_it_is_the_other_integrator(scheme):
    q, p = draw(6, 2), draw(6, 2, seed=1)
    *_, last = trajectory(lambda p: p, torch.sin, q, p, 1.3, 5, scheme)
    torch.testing.assert_close(last, simulate(lambda x, t: torch.sin(x), q, p, 1.3, 5, scheme), **PRECISE)


def test_what_cannot_be_integrated_is_refused():
    q = draw(3, 2)
    for arguments, words in (((0,), "steps >= 1"), ((2, "leapfog"), "leapfrog")):
        with pytest.raises(ConfigurationError, match=words):
            list(trajectory(lambda p: p, lambda q: -q, q, q, 1.0, *arguments))
