"""Lemma 1 and its conditions, the residual, its multiplier, and the test of data."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import grad

from hamflow.equivariant import over_particles, poisson_bracket, rotation, special_euclidean, special_orthogonal, translation
from hamflow.equivariant.bases import MeanFreeNormal, NormalBase, SoftUniform
from hamflow.equivariant.constraints import Multiplier, asymmetry, check_base, check_flow, constrained
from hamflow.equivariant.encoders import CartesianEncoder
from hamflow.equivariant.energies import NetworkEnergy, PairwiseEnergy, RadialEnergy
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.laws.rings import RingsDensity


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow_of(energy, count=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return HamiltonianSequence([Hamiltonian(energy(), energy()) for _ in range(count)], 3, 0.3).double()


def density_after(flow, base):
    return lambda q, p: base.log_prob(*flow.inverse(q, p))


def test_lemma_1_an_invariant_flow_of_an_invariant_law_has_an_invariant_density():
    """{J, ln p} = 0 for p = pi o Phi^-1 if {J, pi} = 0 and {J, H} = 0; not if either fails."""
    q, p, turn = draw(8, 2), draw(8, 2, seed=1), rotation(2)
    radial, crooked = flow_of(lambda: RadialEnergy(16)), flow_of(lambda: NetworkEnergy(2, 16))
    round_law, oblong = NormalBase(2, isotropic=True).double(), NormalBase(2).double()
    with torch.no_grad():
        oblong.log_q += torch.tensor([0.3, -0.3])
    broken = {}
    for name, flow, base in (("both", radial, round_law), ("law", radial, oblong), ("flow", crooked, round_law)):
        broken[name] = float(poisson_bracket(turn, density_after(flow, base))(q, p).detach().abs().max())
    assert broken["both"] < 1e-11
    assert min(broken["law"], broken["flow"]) > 1e-2


def test_lemma_1_for_particles_in_the_plane():
    q, p = MeanFreeNormal(6, 3).double().draw(draw(5, 6), draw(5, 6, seed=1))
    density = density_after(flow_of(lambda: PairwiseEnergy(3, 16)), MeanFreeNormal(6, 3).double())
    for generator in special_euclidean(2):
        value = poisson_bracket(over_particles(generator, 3), density)(q.detach(), p.detach())
        assert float(value.detach().abs().max()) < 1e-11


@pytest.mark.parametrize(
    ("base", "generators"),
    [
        (NormalBase(3, isotropic=True), special_orthogonal(3)),
        (MeanFreeNormal(6, 3), [over_particles(generator, 3) for generator in special_euclidean(2)]),
    ],
    ids=["isotropic", "mean-free"],
)
def test_base_laws_with_the_symmetry_pass(base, generators):
    check_base(base, generators)


@pytest.mark.parametrize(
    ("base", "generator"),
    [
        (NormalBase(2), rotation(2)),  # a scale a coordinate: equal at first, and learned apart
        (NormalBase(2, isotropic=True), translation(2, 0)),
        (SoftUniform(2), rotation(2)),
        (NormalBase(6, isotropic=True), over_particles(translation(2, 1), 3)),
    ],
    ids=["scales", "translation", "box", "particles"],
)
def test_lemma_1_refuses_a_base_law_without_the_symmetry_and_says_why(base, generator):
    with pytest.raises(ConfigurationError, match=rf"(?s)not invariant under '{generator.name}'.*Lemma 1.*mean_free"):
        check_base(base, [generator])


def test_a_hard_constraint_holds_at_all_weights_or_is_refused():
    check_flow(flow_of(lambda: RadialEnergy(16)), special_orthogonal(3), 3)
    check_flow(flow_of(lambda: PairwiseEnergy(3, 16)), [over_particles(g, 3) for g in special_euclidean(2)], 6)
    for energy, generator in ((lambda: NetworkEnergy(2, 16), rotation(2)), (lambda: RadialEnergy(16), translation(2, 0))):
        with pytest.raises(ConfigurationError, match=r"(?s)energies are not invariant.*radial energies"):
            check_flow(flow_of(energy), [generator], 2)


def test_a_generator_of_another_dimension_is_refused():
    for check in (
        lambda: check_base(NormalBase(3, isotropic=True), [rotation(2)]),
        lambda: check_flow(flow_of(lambda: RadialEnergy(16)), [rotation(2)], 3),
    ):
        with pytest.raises(ConfigurationError, match="acts on 2 coordinates, but there are 3"):
            check()


def test_the_residual_is_the_mean_square_of_the_brackets_on_the_way():
    """Against brackets by automatic differentiation of the energies, at states that the inverse visits."""
    flow, generators = flow_of(lambda: NetworkEnergy(2, 16)), special_orthogonal(2)
    density = HamiltonianDensity(flow, NormalBase(2, True), CartesianEncoder(2, True, 16)).double()
    x, noise = draw(6, 2), draw(3, 6, 2, seed=1)
    weights, residual = constrained(density, generators, x, noise)
    torch.testing.assert_close(weights, density.log_weights(x, noise), rtol=0, atol=1e-12)
    q, p, _ = density.encode(x, noise)
    squares = [
        poisson_bracket(generators[0], hamiltonian)(q.detach(), p.detach()).square()
        for hamiltonian, q, p in flow.visited(q, p, backwards=True)
    ]
    assert len(squares) == 2 * 3
    torch.testing.assert_close(residual, torch.stack(squares).mean(0).view(3, 6).mean(0), rtol=1e-10, atol=1e-12)
    assert all(part is not None for part in grad(residual.sum(), list(flow.hamiltonians.parameters())[:2]))


def test_the_multiplier_rises_above_the_tolerance_and_falls_below():
    multiplier = Multiplier(start=0.1, tolerance=0.05, limit=10.0)
    for residual, sign in ((1.0, -1), (0.0, 1)):
        for _ in range(1000):
            multiplier.watch(torch.tensor(residual))
        (slope,) = grad(multiplier.loss(), multiplier.log)
        assert float(slope) == pytest.approx(sign * abs(residual - 0.05), rel=0.02)  # descent follows minus the slope


@torch.no_grad()
def test_the_multiplier_has_a_limit_and_says_when_it_is_stuck_there():
    multiplier = Multiplier(start=0.1, tolerance=0.05, limit=10.0)
    assert not multiplier.stuck
    multiplier.log += 100
    multiplier.confine()
    assert float(multiplier.value) == pytest.approx(10.0)
    assert not multiplier.stuck  # the constraint is met
    for _ in range(500):
        multiplier.watch(torch.tensor(1.0))
    assert multiplier.stuck
    with pytest.raises(ConfigurationError, match="beyond its limit"):
        Multiplier(start=1.0, tolerance=0.05, limit=0.5)


def test_data_that_lack_the_symmetry_are_told_from_data_that_have_it():
    rng = np.random.default_rng(0)
    rings = RingsDensity().sample(2000, rng)
    scores = [asymmetry(rotation(2), RingsDensity().sample(2000, rng), seed) for seed in range(20)]
    assert 1 < np.mean(scores) < 4
    assert max(scores) < 6
    modes = GaussianMixture([0.5, 0.5], [[2.0, 0.0], [-2.0, 0.0]], [0.5, 0.5]).sample(2000, rng)
    assert asymmetry(rotation(2), modes) > 10
    assert asymmetry(rotation(2), rings + torch.tensor([0.5, 0.0])) > 10  # a ring about another centre
    assert asymmetry(translation(2, 0), rings) > 10


def test_the_identity_behind_that_test():
    """E[(A x) . grad phi] = -int phi (A q) . grad f, for a normal law by quadrature on a grid."""
    axis = torch.linspace(-8, 8, 401, dtype=torch.float64)
    q = torch.cartesian_prod(axis, axis)
    spread = torch.tensor([1.0, 0.6], dtype=torch.float64)
    f = torch.exp(-0.5 * (q / spread).square().sum(1)) / (2 * math.pi * spread.prod())
    wave, phase = torch.tensor([0.7, -1.1], dtype=torch.float64), 0.4
    field, cell = rotation(2).field(q), float(axis[1] - axis[0]) ** 2
    left = (f * -torch.sin(q @ wave + phase) * (field @ wave)).sum() * cell
    right = -(torch.cos(q @ wave + phase) * (field * (-q / spread.square())).sum(1) * f).sum() * cell
    assert float(left) == pytest.approx(float(right), abs=1e-9)
    assert abs(float(left)) > 1e-2
