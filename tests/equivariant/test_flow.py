"""The flow: inverse, symplecticity, volume, and what a symmetry of its energies makes of it."""

import pytest
import torch
from torch.func import jacrev, vmap

from hamflow.equivariant import charges, over_particles, rotation, special_euclidean, special_orthogonal
from hamflow.equivariant.energies import Energy, NetworkEnergy, PairwiseEnergy, Quadratic, RadialEnergy
from hamflow.equivariant.flow import Hamiltonian, HamiltonianSequence

PRECISE = {"rtol": 0, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def sequence(kind, d=2, scheme="leapfrog", steps=4):
    pairs = [Hamiltonian(kind(True), kind(False)) for _ in range(2)]
    return HamiltonianSequence(pairs, steps, 0.2, scheme).double().requires_grad_(False)


FLOWS = {
    "network": lambda scheme: sequence(lambda quadratic: NetworkEnergy(2, 16, quadratic=quadratic), scheme=scheme),
    "radial": lambda scheme: sequence(lambda quadratic: RadialEnergy(16, quadratic=quadratic), scheme=scheme),
}


def every_flow(test):
    test = pytest.mark.parametrize("scheme", ["leapfrog", "yoshida4"])(test)
    return pytest.mark.parametrize("name", FLOWS)(test)


@every_flow
def test_the_inverse_leads_back(name, scheme):
    flow, state = FLOWS[name](scheme), (draw(20, 2), draw(20, 2, seed=1))
    moved = flow(*state)
    assert float((moved[0] - state[0]).abs().mean()) > 0.1
    torch.testing.assert_close(flow.inverse(*moved), state, **PRECISE)
    torch.testing.assert_close(flow(*flow.inverse(*state)), state, **PRECISE)


@every_flow
def test_the_flow_is_symplectic_and_keeps_volume(name, scheme):
    flow = FLOWS[name](scheme)

    def whole(z):
        return torch.cat([part[0] for part in flow(z[None, :2], z[None, 2:])])

    z = draw(5, 4)
    jacobian = vmap(jacrev(whole))(z)
    omega = torch.zeros(4, 4, dtype=torch.float64)
    omega[:2, 2:], omega[2:, :2] = torch.eye(2), -torch.eye(2)
    torch.testing.assert_close(jacobian.mT @ omega @ jacobian, omega.expand(5, 4, 4), **PRECISE)
    torch.testing.assert_close(torch.linalg.det(jacobian), torch.ones(5, dtype=torch.float64), **PRECISE)


def test_each_hamiltonian_learns_its_step():
    flow = HamiltonianSequence([Hamiltonian(Quadratic(), Quadratic()) for _ in range(3)], 2).double()
    q, p = flow(draw(3, 2), draw(3, 2, seed=1))
    (gradient,) = torch.autograd.grad((q * p).sum(), flow.log_steps)
    assert bool((gradient.abs() > 1e-3).all())


class Tilted(Energy):
    """A radial energy plus .3 sin of the first coordinate: the symmetry is broken."""

    def __init__(self):
        super().__init__()
        self.radial = RadialEnergy(16)

    def gradient(self, x):
        slope = torch.zeros_like(x)
        slope[:, 0] = 0.3 * torch.cos(x[:, 0])
        return self.radial.gradient(x) + slope


SYMMETRIC = {
    "radial, plane": (lambda: RadialEnergy(16, quadratic=True), special_orthogonal(2)),
    "radial, space": (lambda: RadialEnergy(16, quadratic=True), special_orthogonal(3)),
    "pairs in the plane": (lambda: PairwiseEnergy(3, 16, quadratic=True), [over_particles(g, 3) for g in special_euclidean(2)]),
}


def departures(flow, generator, d):
    """(of moving then turning from turning then moving, of the charge along the way): the largest of each."""
    q, p = draw(10, d), draw(10, d, seed=1)
    turned_after, turned_before = generator.move(*flow(q, p), 0.8), flow(*generator.move(q, p, 0.8))
    path = charges([generator], [(q, p), *((q, p) for _, q, p in flow.visited(q, p))])
    apart = max(float((a - b).abs().max()) for a, b in zip(turned_after, turned_before, strict=True))
    return apart, float((path - path[:1]).abs().max())


@pytest.mark.parametrize("scheme", ["leapfrog", "yoshida4"])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_with_invariant_energies_the_flow_commutes_with_the_symmetry_and_keeps_its_charge(name, scheme):
    """Each shear is the exact flow of K or of U: it holds at any step size, while energy drifts."""
    kind, generators = SYMMETRIC[name]
    flow = sequence(lambda quadratic: kind(), scheme=scheme)
    for generator in generators:
        assert max(departures(flow, generator, generator.dimension)) < 1e-12
    q, p = draw(10, generators[0].dimension), draw(10, generators[0].dimension, seed=1)
    hamiltonian, *after = next(flow.visited(q, p))
    assert float((hamiltonian(*after) - hamiltonian(q, p)).abs().max()) > 1e-4


def test_with_a_broken_symmetry_it_does_not():
    flow = sequence(lambda quadratic: Tilted())
    assert min(departures(flow, rotation(2), 2)) > 1e-2
