"""The Poisson bracket and the generators of symmetries: an algebra is tested by its axioms and its table."""

import itertools

import pytest
import torch

from hamflow.equivariant import (
    charges,
    linear,
    over_particles,
    poisson_bracket,
    rotation,
    special_euclidean,
    special_orthogonal,
    structure_constants,
    translation,
    translations,
)
from hamflow.errors import ConfigurationError

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def state():
    return draw(7, 3, seed=1), draw(7, 3, seed=2)


def random_function(seed, d=3):
    """A smooth function that is no polynomial and mixes all coordinates."""
    a, b, c = draw(4, d, seed=seed), draw(4, d, seed=seed + 100), draw(4, seed=seed + 200)
    return lambda q, p: (torch.sin(q @ a.T + p @ b.T + c) * torch.exp(0.1 * (p @ a.T))).sum(-1)


f, g, h = (random_function(seed) for seed in (10, 20, 30))


def coordinate(i):
    return lambda q, p: q[..., i]


def momentum(i):
    return lambda q, p: p[..., i]


def test_coordinates_and_momenta_are_canonical(state):
    for i, j in itertools.product(range(3), repeat=2):
        expected = torch.full((7,), float(i == j), dtype=torch.float64)
        torch.testing.assert_close(poisson_bracket(coordinate(i), momentum(j))(*state), expected, **EXACT)
        torch.testing.assert_close(poisson_bracket(coordinate(i), coordinate(j))(*state), 0 * expected, **EXACT)
        torch.testing.assert_close(poisson_bracket(momentum(i), momentum(j))(*state), 0 * expected, **EXACT)


def test_the_bracket_is_antisymmetric(state):
    torch.testing.assert_close(poisson_bracket(f, g)(*state), -poisson_bracket(g, f)(*state), **EXACT)


def test_leibniz(state):
    product = poisson_bracket(lambda q, p: f(q, p) * g(q, p), h)(*state)
    parts = f(*state) * poisson_bracket(g, h)(*state) + poisson_bracket(f, h)(*state) * g(*state)
    torch.testing.assert_close(product, parts, **EXACT)


def test_jacobi(state):
    terms = [poisson_bracket(a, poisson_bracket(b, c))(*state) for a, b, c in ((f, g, h), (g, h, f), (h, f, g))]
    torch.testing.assert_close(sum(terms), torch.zeros(7, dtype=torch.float64), **EXACT)
    assert all(float(term.detach().abs().min()) > 1e-3 for term in terms)


def test_the_bracket_is_the_rate_of_change_along_the_flow(state):
    """d f / dt under q' = dH/dp, p' = -dH/dq is {f, H}: by a central difference of the exact flow of H = (q^2 + p^2) / 2."""
    q, p = state
    energy = lambda q, p: (q.square() + p.square()).sum(-1) / 2  # noqa: E731
    turned = lambda t: f(torch.cos(t) * q + torch.sin(t) * p, torch.cos(t) * p - torch.sin(t) * q)  # noqa: E731
    t = torch.tensor(1e-4, dtype=torch.float64)
    rate = (turned(t) - turned(-t)) / (2 * t)
    torch.testing.assert_close(poisson_bracket(f, energy)(q, p), rate, rtol=1e-6, atol=1e-6)


def test_any_batch_shape_constants_and_gradients(state):
    q, p = draw(2, 5, 3), draw(2, 5, 3, seed=1)
    whole = poisson_bracket(f, g)(q, p)
    flat = poisson_bracket(f, g)(q.reshape(10, 3), p.reshape(10, 3))
    torch.testing.assert_close(whole.reshape(10), flat, **EXACT)
    assert torch.equal(poisson_bracket(f, lambda q, p: torch.ones(7, dtype=q.dtype))(*state), torch.zeros(7).double())
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    value = poisson_bracket(f, lambda q, p: weight * g(q, p))(*state)
    (gradient,) = torch.autograd.grad(value.sum(), weight)
    torch.testing.assert_close(gradient, value.sum().detach() / 2, **EXACT)
    with torch.no_grad():
        assert not poisson_bracket(f, g)(*state).requires_grad


def test_the_algebra_of_the_plane():
    """{J, p_1} = p_2, {J, p_2} = -p_1, {q, J} = (-q_2, q_1), by automatic differentiation and in closed form."""
    q, p = draw(7, 2, seed=1), draw(7, 2, seed=2)
    p_1, p_2, j = special_euclidean(2)
    for one, other, expected in ((j, p_1, p[:, 1]), (j, p_2, -p[:, 0]), (p_1, p_2, 0 * p[:, 0])):
        torch.testing.assert_close(poisson_bracket(one, other)(q, p), expected, **EXACT)
        torch.testing.assert_close(one.bracket(other)(q, p), expected, **EXACT)
    turned = torch.stack([poisson_bracket(coordinate(i), j)(q, p) for i in range(2)], 1)
    torch.testing.assert_close(turned, torch.stack([-q[:, 1], q[:, 0]], 1), **EXACT)
    torch.testing.assert_close(j(q, p), q[:, 0] * p[:, 1] - q[:, 1] * p[:, 0], **EXACT)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_structure_constants_are_those_of_the_rotations_and_translations(d):
    """By the bracket of functions: {g_k, g_l} = sum_m c_klm g_m at random states; antisymmetric, with Jacobi's identity."""
    q, p = draw(20, d, seed=1), draw(20, d, seed=2)
    generators = special_euclidean(d)
    constants = structure_constants(generators)
    values = torch.stack([generator(q, p) for generator in generators])
    for k, m in itertools.product(range(len(generators)), repeat=2):
        expected = poisson_bracket(generators[k], generators[m])(q, p)
        torch.testing.assert_close(constants[k, m] @ values, expected, **EXACT)
    torch.testing.assert_close(constants, -constants.transpose(0, 1), **EXACT)
    nested = torch.einsum("klm,mno->klno", constants, constants)
    cyclic = nested + nested.permute(2, 0, 1, 3) + nested.permute(1, 2, 0, 3)
    torch.testing.assert_close(cyclic, torch.zeros_like(cyclic), **EXACT)


def test_so_3_is_the_cross_product():
    """{L_i, L_j} = eps_ijk L_k with L = q x p."""
    xy, xz, yz = special_orthogonal(3)
    q, p = draw(5, 3), draw(5, 3, seed=1)
    angular = torch.linalg.cross(q, p)
    torch.testing.assert_close(torch.stack([yz(q, p), -xz(q, p), xy(q, p)], 1), angular, **EXACT)
    torch.testing.assert_close(yz.bracket(linear(-xz.matrix))(q, p), xy(q, p), **EXACT)


@pytest.mark.parametrize("name", ["rotation", "shear", "translation", "particles"])
def test_the_finite_action_is_the_flow_of_its_generator(name):
    """A central difference of `move` is (A q + b, -A^T p) = ({q, g}, {p, g}); and the canonical pairing p . dq is kept."""
    generator = {
        "rotation": rotation(4, 1, 3),
        "shear": linear([[0.3, 1.0, 0, 0], [0, -0.2, 0, 0.5], [0, 0, 0, 1], [1, 0, 0, 0]]),
        "translation": translation(4, 2),
        "particles": over_particles(rotation(2), 2),
    }[name]
    q, p, t = draw(6, 4), draw(6, 4, seed=1), 1e-5
    after, before = generator.move(q, p, t), generator.move(q, p, -t)
    for index, part in ((0, coordinate), (1, momentum)):
        expected = torch.stack([poisson_bracket(part(i), generator)(q, p) for i in range(4)], 1)
        torch.testing.assert_close((after[index] - before[index]) / (2 * t), expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(generator.move(*generator.move(q, p, 0.7), -0.7), (q, p), rtol=0, atol=1e-12)
    torch.testing.assert_close(generator(*generator.move(q, p, 0.7)), generator(q, p), rtol=0, atol=1e-12)


def test_the_rate_of_a_separable_hamiltonian_is_its_bracket():
    kinetic = lambda p: torch.log(1 + (p @ draw(3, 3, seed=5)).square().sum(-1))  # noqa: E731
    potential = lambda q: torch.sin(q @ draw(3, 3, seed=6)).sum(-1)  # noqa: E731
    q, p = draw(7, 3, seed=1).requires_grad_(), draw(7, 3, seed=2).requires_grad_()
    (velocity,) = torch.autograd.grad(kinetic(p).sum(), p)
    (gradient,) = torch.autograd.grad(potential(q).sum(), q)
    for generator in (*special_euclidean(3), linear(draw(3, 3))):
        expected = poisson_bracket(generator, lambda q, p: kinetic(p) + potential(q))(q, p)
        torch.testing.assert_close(generator.rate(q, p, velocity, -gradient), expected, **EXACT)


def test_particles_turn_about_the_origin_together():
    q, p = draw(5, 6), draw(5, 6, seed=1)
    one, whole = rotation(2), over_particles(rotation(2), 3)
    parts = [one(q[:, i : i + 2], p[:, i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(whole(q, p), sum(parts), **EXACT)
    shifted, same = over_particles(translation(2, 1), 3).move(q, p, 0.5)
    torch.testing.assert_close(shifted - q, torch.tensor([0, 0.5] * 3).double().expand(5, 6), **EXACT)
    assert torch.equal(same, p)


def test_charges_are_the_generators_along_the_states():
    states = [(draw(4, 2, seed=t), draw(4, 2, seed=t + 50)) for t in range(3)]
    found = charges(special_euclidean(2), states)
    assert found.shape == (3, 3, 4)
    q, p = states[1]
    torch.testing.assert_close(found[1], torch.stack([*p.T, q[:, 0] * p[:, 1] - q[:, 1] * p[:, 0]]), **EXACT)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: rotation(2)(draw(5, 3), draw(5, 3)), "acts on 2 coordinates, but there are 3.*over_particles"),
        (lambda: rotation(2).bracket(translation(3, 0)), "acts on 2 coordinates, but there are 3"),
        (lambda: rotation(2, 0, 2), "no axis 2 among 2"),
        (lambda: rotation(2, 1, 1), "two different axes"),
        (lambda: special_orthogonal(1), "rotations need a plane"),
        (lambda: linear([[1.0, 0.0]]), "needs A \\[d, d\\]"),
        (lambda: structure_constants([rotation(2), translation(2, 0)]), "no combination .*add the bracket"),
        (lambda: structure_constants([*translations(2), translation(2, 0)]), "depend on each other"),
        (lambda: poisson_bracket(f, g)(draw(5, 3), draw(4, 3)), "same shape"),
        (lambda: poisson_bracket(f, lambda q, p: q)(draw(5, 3), draw(5, 3)), "one number a row"),
    ],
)
def test_what_is_no_symmetry_is_refused_with_its_reason(mistake, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        mistake()
