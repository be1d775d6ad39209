"""Where the minimum of a potential lies, and where its flow takes a law: one harmonic well in closed form (theory 9.7)."""

import itertools
import math

import pytest
import torch

from hamflow.equivariant.bases import NormalBase
from hamflow.equivariant.energies import Energy, Quadratic
from hamflow.equivariant.flow import Hamiltonian, HamiltonianSequence
from hamflow.methods.base import METHODS

CENTRE, OMEGA = 1.3, 0.9


class Well(Energy):
    """omega^2 (x - c)^2 / 2."""

    def gradient(self, x):
        return OMEGA**2 * (x - CENTRE)


@torch.no_grad()
def carried(duration, base):
    """(mean, standard deviation) of the law of q after a duration, from the images of the base law's mean and axes."""
    steps = 400
    flow = HamiltonianSequence([Hamiltonian(Quadratic(), Well())], steps, duration / steps).double()
    origin, axes = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    mean, along_q, along_p = (float(flow(q, p)[0]) for q, p in ((origin, origin), (axes, origin), (origin, axes)))
    scales = float(base.log_q.exp()), float(base.log_p.exp())
    return mean, math.hypot(scales[0] * (along_q - mean), scales[1] * (along_p - mean))


@pytest.fixture
def base():
    law = NormalBase(1, isotropic=True, spread=1.7).double()
    with torch.no_grad():
        law.log_p.fill_(math.log(0.4))
    return law


@pytest.mark.parametrize("phase", [0.4, 0.5, 0.7, 1.0])
def test_a_well_takes_the_law_to_its_minimum_in_a_quarter_period_only(base, phase):
    mean, sd = carried(phase * math.pi / OMEGA, base)
    cos, sin = math.cos(phase * math.pi), math.sin(phase * math.pi)
    assert mean == pytest.approx(CENTRE * (1 - cos), abs=1e-4)
    assert sd == pytest.approx(math.hypot(1.7 * cos, 0.4 / OMEGA * sin), abs=1e-4)
    assert (abs(mean - CENTRE) < 1e-4) == (phase == 0.5)


def test_the_narrower_the_mode_the_nearer_is_the_minimum(base):
    """|c - mode| <= |mode| r / (1 - r), with r the mode's width over that of the base law."""
    checked = 0
    for phase in torch.linspace(0.3, 1.0, 15).tolist():
        mean, sd = carried(phase * math.pi / OMEGA, base)
        if (r := sd / 1.7) < 1:
            assert abs(CENTRE - mean) <= abs(mean) * r / (1 - r) + 1e-3
            checked += 1
    assert checked >= 10


class Quartic(Energy):
    """x^2 / 2 + x^4 / 4."""

    def forward(self, x):
        return (x.square() / 2 + x.square().square() / 4).sum(1)

    def gradient(self, x):
        return x + x**3


@torch.no_grad()
def test_a_flow_that_ends_in_a_stationary_law_began_in_it():
    """ln pi = -H is carried to itself, up to leapfrog's error, which falls as the square of its step."""
    rng = torch.Generator().manual_seed(0)
    q, p = (torch.randn(50, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    hamiltonian, apart = Hamiltonian(Quadratic(), Quartic()).double(), []
    for steps in (40, 80, 160):
        flow = HamiltonianSequence([hamiltonian], steps, 2.0 / steps).double()
        apart.append(float((hamiltonian(*flow.inverse(q, p)) - hamiltonian(q, p)).abs().max()))
    assert apart[-1] < 0.05
    assert [a / b for a, b in itertools.pairwise(apart)] == pytest.approx([4, 4], rel=0.1)


def test_a_spread_that_is_given_is_kept():
    kept, learned = (METHODS.build("equivariant", spread=spread).density((2,), 1.0).base for spread in (1.5, None))
    assert torch.allclose(kept.log_q.exp(), torch.full((2,), 1.5))
    assert [name for name, _ in kept.named_parameters()] == ["log_p", "mean"]
    assert "log_q" in dict(learned.named_parameters())


def test_an_energy_is_the_integral_of_its_gradient_where_it_says_nothing_else():
    class Gradient(Quartic):
        forward = Energy.forward

    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    origin = Quartic()(torch.zeros_like(x))
    torch.testing.assert_close(Gradient()(x), Quartic()(x) - origin, rtol=1e-12, atol=1e-12)
