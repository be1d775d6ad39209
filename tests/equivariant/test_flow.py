"""Energies, base laws, encoders and the flow: changes of variables, symplecticity, and a linear flow in closed form."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacrev, vmap

from hamflow.dynamics import SCHEMES, simulate
from hamflow.dynamics.separable import trajectory
from hamflow.equivariant import charges, over_particles, rotation, special_euclidean, special_orthogonal
from hamflow.equivariant.bases import MeanFreeNormal, NormalBase, SoftUniform, centred
from hamflow.equivariant.encoders import CartesianEncoder, Encoder, ParticleEncoder, RadialEncoder
from hamflow.equivariant.energies import Energy, NetworkEnergy, PairwiseEnergy, Quadratic, RadialEnergy
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence
from hamflow.errors import ConfigurationError

PRECISE = {"rtol": 0, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


ENERGIES = {
    "quadratic": lambda: Quadratic(),
    "network": lambda: NetworkEnergy(4, 16),
    "network+quadratic": lambda: NetworkEnergy(4, 16, 3, quadratic=True),
    "network of distances": lambda: NetworkEnergy(4, 16, distance=True),
    "radial": lambda: RadialEnergy(16, gain=2.0, quadratic=True),
    "pairwise": lambda: PairwiseEnergy(2, 16),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_a_gradient_is_that_of_its_energy(name):
    energy = ENERGIES[name]().double()
    x = draw(9, 4).requires_grad_()
    (expected,) = torch.autograd.grad(energy(x).sum(), x)
    exact = name not in ("radial", "pairwise")  # whose energy is a quadrature along the radius
    torch.testing.assert_close(energy.gradient(x), expected, rtol=0, atol=1e-12 if exact else 1e-5)


def test_an_energy_s_gradient_trains_its_weights():
    energy, x = NetworkEnergy(3, 8).double(), draw(5, 3)
    weights = list(energy.parameters())
    twice = lambda: energy.gradient(x).square().sum()  # noqa: E731
    found = torch.autograd.grad(twice(), weights, allow_unused=True)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(y).sum(), y, create_graph=True)
    expected = torch.autograd.grad(gradient.square().sum(), weights, allow_unused=True)
    torch.testing.assert_close(found, expected, **PRECISE)


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


def density_of_the_map(draw_from, noise):
    """ln of the density that a map gives to unit normal noise, by the determinant of its Jacobian."""
    jacobian = vmap(jacrev(draw_from))(noise)
    log_normal = -0.5 * noise.square().sum(1) - 0.5 * noise.shape[1] * torch.log(torch.tensor(2 * torch.pi))
    return log_normal - torch.linalg.slogdet(jacobian)[1]


@torch.no_grad()
def shaken(module):
    module = module.double()
    for index, weight in enumerate(module.parameters()):
        weight += 0.3 * draw(*weight.shape, seed=index)
    return module


@pytest.mark.parametrize(
    "base",
    [NormalBase(3), NormalBase(3, isotropic=True), SoftUniform(3), SoftUniform(3, 0.5, 20.0)],
    ids=["normal", "isotropic", "soft uniform", "sharp"],
)
def test_a_base_law_is_the_law_of_its_draws(base):
    base, noise = shaken(base), draw(40, 6)
    whole = lambda z: torch.cat(base.draw(z[None, :3], z[None, 3:]), 1)[0]  # noqa: E731
    expected = density_of_the_map(whole, noise)
    found = base.log_prob(*base.draw(noise[:, :3], noise[:, 3:]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # float32 coefficients of the noise's own density


def orthonormal(particles, d):
    """A basis of the states without a mean, [n d, (n - 1) d]."""
    space = centred(torch.eye(particles * d, dtype=torch.float64), particles)
    return torch.linalg.svd(space)[0][:, : (particles - 1) * d]


def test_the_mean_free_law_is_the_law_of_its_draws_on_its_subspace():
    base, basis, noise = shaken(MeanFreeNormal(6, 3)), orthonormal(3, 2), draw(20, 8)
    whole = lambda z: torch.cat([part[0] @ basis for part in base.draw(z[None, :4] @ basis.T, z[None, 4:] @ basis.T)])  # noqa: E731
    found = base.log_prob(*base.draw(noise[:, :4] @ basis.T, noise[:, 4:] @ basis.T))
    torch.testing.assert_close(found, density_of_the_map(whole, noise), rtol=0, atol=1e-6)
    q, _ = base.draw(draw(5, 6), draw(5, 6, seed=1))
    torch.testing.assert_close(q.view(5, 3, 2).mean(1), torch.zeros(5, 2, dtype=torch.float64), **PRECISE)


ENCODERS = {
    "diagonal": lambda: CartesianEncoder(2, False, 16),
    "full": lambda: CartesianEncoder(2, True, 16),
    "radial": lambda: RadialEncoder(2, 16),
    "radial in space": lambda: RadialEncoder(3, 16),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_the_law_of_its_momenta(name):
    encoder = shaken(ENCODERS[name]()).requires_grad_(False)
    q, noise = draw(20, encoder.d), draw(20, encoder.d, seed=1)
    for row in range(3):
        whole = lambda z, row=row: encoder(q[row][None], z[None])[0][0]  # noqa: E731
        expected = density_of_the_map(whole, noise)
        found = encoder(q[row].expand(20, -1), noise)[1]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_particle_encoder_is_the_law_of_its_momenta_on_their_subspace():
    encoder, basis, noise = shaken(ParticleEncoder(6, 3, 16)).requires_grad_(False), orthonormal(3, 2), draw(20, 4)
    q = draw(1, 6)
    expected = density_of_the_map(lambda z: encoder(q, z[None] @ basis.T)[0][0] @ basis, noise)
    torch.testing.assert_close(encoder(q.expand(20, 6), noise @ basis.T)[1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "generators"),
    [
        (RadialEncoder(2, 16), special_orthogonal(2)),
        (RadialEncoder(3, 16), special_orthogonal(3)),
        (ParticleEncoder(6, 3, 16), [over_particles(g, 3) for g in special_euclidean(2)]),
    ],
    ids=["plane", "space", "particles"],
)
def test_encoders_in_the_frame_of_the_position_are_equivariant(encoder, generators):
    encoder = shaken(encoder).requires_grad_(False)
    q, noise = draw(10, generators[0].dimension), draw(10, generators[0].dimension, seed=1)
    p, log_h = encoder(q, noise)
    for generator in generators:
        turned_q, turned_p = generator.move(q, p, 0.8)
        found, same = encoder(turned_q, generator.move(q, noise, 0.8)[1])
        torch.testing.assert_close(found, turned_p, **PRECISE)
        torch.testing.assert_close(same, log_h, **PRECISE)


class Form(Energy):
    """x^T S x / 2."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = torch.nn.Parameter(matrix)

    def gradient(self, x):
        return x @ self.matrix


class LinearEncoder(Encoder):
    """N(W q + b, L L^T)."""

    def __init__(self, matrix, shift, lower):
        super().__init__()
        self.matrix, self.shift, self.lower = matrix, shift, lower

    def law(self, q):
        return MultivariateNormal(q @ self.matrix.T + self.shift, scale_tril=self.lower)

    def forward(self, q, noise):
        law = self.law(q)
        p = law.loc + noise @ self.lower.T
        return p, law.log_prob(p)


class Linear:
    """A linear flow of normal states: with s_n = M s_0 + m everything about it is normal and known."""

    def __init__(self):
        forms = [draw(2, 2, seed=seed) for seed in range(4)]
        k_1, u_1, k_2, u_2 = (Form(0.5 * (a @ a.T) + torch.eye(2)) for a in forms)
        flow = HamiltonianSequence([Hamiltonian(k_1, u_1), Hamiltonian(k_2, u_2)], 3, 0.3).double()
        self.base = shaken(NormalBase(2))
        self.flow = flow.requires_grad_(False)
        columns = torch.eye(4, dtype=torch.float64)
        moved = torch.cat(flow(columns[:, :2], columns[:, 2:]), 1).T
        spread = torch.cat([self.base.log_q, self.base.log_p]).detach().exp()
        mean = moved @ torch.cat([self.base.mean.detach(), torch.zeros(2, dtype=torch.float64)])
        covariance = moved @ torch.diag(spread.square()) @ moved.T
        self.law = MultivariateNormal(mean[:2], covariance[:2, :2])
        gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
        rest = covariance[2:, 2:] - gain @ covariance[:2, 2:]
        self.exact = LinearEncoder(gain, mean[2:] - gain @ mean[:2], torch.linalg.cholesky(rest))
        self.other = LinearEncoder(gain + 0.2, self.exact.shift - 0.3, 1.3 * self.exact.lower)
        self.x = 1.5 * draw(8, 2, seed=9)

    def density(self, encoder, unit=1.0):
        return HamiltonianDensity(self.flow, self.base, encoder, unit)


@pytest.fixture
def linear():
    return Linear()


@torch.no_grad()
def test_with_the_exact_encoder_every_draw_gives_the_exact_density(linear):
    weights = linear.density(linear.exact).log_weights(linear.x, draw(5, 8, 2))
    torch.testing.assert_close(weights, linear.law.log_prob(linear.x).expand(5, 8), rtol=0, atol=1e-11)


@torch.no_grad()
def test_with_another_encoder_the_bound_is_short_by_exactly_the_divergence(linear):
    """The log-weight is a quadratic function of the noise, of which three nodes of Gauss and Hermite give the exact mean."""
    nodes = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
    weights = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    noise = torch.tensor(list(itertools.product(nodes, repeat=2)), dtype=torch.float64)
    mass = torch.tensor([a * b for a, b in itertools.product(weights, repeat=2)], dtype=torch.float64)
    found = mass @ linear.density(linear.other).log_weights(linear.x, noise[:, None].expand(9, 8, 2))
    short = kl_divergence(linear.other.law(linear.x), linear.exact.law(linear.x))
    assert float(short.min()) > 0.1
    torch.testing.assert_close(found, linear.law.log_prob(linear.x) - short, rtol=0, atol=1e-10)


@torch.no_grad()
def test_more_momenta_raise_the_bound_towards_the_density(linear):
    density, exact = linear.density(linear.other), linear.law.log_prob(linear.x)
    short = [float((exact - density.bound(linear.x, draw(n, 8, 2).float().double())).mean()) for n in (1, 16, 4096)]
    assert short[0] > short[1] > short[2]
    assert abs(short[2]) < 0.02


@torch.no_grad()
def test_units_change_the_density_as_they_should(linear):
    """p(x) of x = u q is p(q) / u^d."""
    found = linear.density(linear.exact, unit=2.5).bound(2.5 * linear.x, draw(1, 8, 2))
    torch.testing.assert_close(found, linear.law.log_prob(linear.x) - 2 * math.log(2.5), rtol=0, atol=1e-6)


@torch.no_grad()
def test_samples_have_the_law(linear):
    x = linear.density(linear.exact).draw(draw(40_000, 2), draw(40_000, 2, seed=1))
    torch.testing.assert_close(x.mean(0), linear.law.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(x.T), linear.law.covariance_matrix, rtol=0.04, atol=0.04)


def test_particles_that_are_none_are_refused():
    with pytest.raises(ConfigurationError, match=r"at least 2 particles(?s:.*)without its mean"):
        MeanFreeNormal(4, 1)
    with pytest.raises(ConfigurationError, match="5 coordinates are not those of 2"):
        ParticleEncoder(5, 2)
