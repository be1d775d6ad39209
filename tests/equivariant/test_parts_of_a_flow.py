"""Energies, base laws and encoders: gradients, and changes of variables by the determinant of a Jacobian."""

import pytest
import torch
from torch.func import jacrev, vmap

from hamflow.equivariant import over_particles, special_euclidean, special_orthogonal
from hamflow.equivariant.bases import MeanFreeNormal, NormalBase, SoftUniform, centred
from hamflow.equivariant.encoders import CartesianEncoder, ParticleEncoder, RadialEncoder
from hamflow.equivariant.energies import NetworkEnergy, PairwiseEnergy, Quadratic, RadialEnergy
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


def test_particles_that_are_none_are_refused():
    with pytest.raises(ConfigurationError, match=r"at least 2 particles(?s:.*)without its mean"):
        MeanFreeNormal(4, 1)
    with pytest.raises(ConfigurationError, match="5 coordinates are not those of 2"):
        ParticleEncoder(5, 2)
