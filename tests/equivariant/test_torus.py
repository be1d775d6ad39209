"""Energies and encoders of images on a torus: gradients, equivariance, densities, and what is refused."""

import warnings

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from hamflow.draws import BatchDraws
from hamflow.equivariant.torus import TorusEncoder, TorusEnergy, shift_asymmetry, shifted
from hamflow.errors import ConfigurationError
from hamflow.methods.base import METHODS, Facts
from hamflow.registry import convert
from hamflow.studies import torus
from hamflow.training.fit import Batch

SHAPE = (2, 4, 6)
D = 48
MOVES = [(1, 0), (0, 5), (3, 2)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def energy():
    torch.manual_seed(0)
    return TorusEnergy(SHAPE, width=5, depth=2, quadratic=True).double()


def density(**options):
    torch.manual_seed(0)
    method = METHODS.build("equivariant", constraint="hard", group="shifts", encoder="torus", width=5, steps=2, **options)
    return method.density(SHAPE, 1.5).double()


def test_the_gradient_is_that_of_the_energy(energy):
    x = noise(3, D).requires_grad_()
    (expected,) = torch.autograd.grad(energy(x).sum(), x)
    torch.testing.assert_close(energy.gradient(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("move", MOVES)
def test_the_flow_shifts_with_its_state_and_the_energy_stays(energy, move):
    q, p = noise(3, D), noise(3, D, seed=1)
    torch.testing.assert_close(energy(shifted(q, SHAPE, *move)), energy(q), rtol=0, atol=1e-12)
    flow = density().flow
    expected = [shifted(part, SHAPE, *move) for part in flow(q, p)]
    found = flow(*(shifted(part, SHAPE, *move) for part in (q, p)))
    torch.testing.assert_close(list(found), expected, rtol=0, atol=1e-12)
    assert float((expected[0] - q).detach().abs().max()) > 0.1  # it moves at all


@pytest.mark.parametrize("move", MOVES)
def test_the_weights_of_a_shifted_image_are_those_of_the_image(move):
    """Under shifted momenta: so the density, their mean, is invariant."""
    model, x, e = density(), noise(4, D), noise(2, 4, D, seed=1)
    moved = torch.stack([shifted(one, SHAPE, *move) for one in e])
    torch.testing.assert_close(model.log_weights(shifted(x, SHAPE, *move), moved), model.log_weights(x, e), rtol=0, atol=1e-11)


def test_the_encoder_says_the_density_of_its_momenta():
    torch.manual_seed(0)
    encoder, q = TorusEncoder(SHAPE, width=5).double(), noise(3, D)
    mean, one = (encoder(q, fill * torch.ones_like(q))[0] for fill in (0.0, 1.0))
    p, log_h = encoder(q, noise(3, D, seed=1))
    torch.testing.assert_close(log_h, Normal(mean, one - mean).log_prob(p).sum(1), rtol=0, atol=1e-10)


def test_data_that_stand_still_are_told_from_data_that_are_shifted():
    images = torus.digits()
    moved = torus._moved(images, np.random.default_rng(0))
    shape = tuple(images.shape[1:])
    assert shift_asymmetry(moved.flatten(1), shape) < 5
    assert shift_asymmetry(images.flatten(1), shape) > 10


@pytest.mark.parametrize("constraint", ["hard", "none"])
def test_a_constraint_that_the_data_lack_is_told(constraint):
    facts = Facts(name="digits", shape=(1, 8, 8), classes=0, sigma_data=0.8, box=(-1.0, 1.0), network={})
    method = METHODS.build("equivariant", constraint=constraint, group="shifts", encoder="torus", width=4, steps=1)
    objective = method.objective(facts, {}, 0)
    images = torus.digits().float()
    batch = Batch(x=images, label=None, draw=BatchDraws(0, "x", batch=len(images)), step=0, averaged=objective)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        objective.losses("density", batch)
    assert [("'shifts'" in str(one.message)) for one in said] == ([True] if constraint == "hard" else [])


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"constraint": "hard", "group": "shifts"}, (2,), "for images"),
        ({"encoder": "torus"}, (2,), "for images"),
        ({"constraint": "soft", "group": "shifts"}, (1, 8, 8), "finite"),
        ({"constraint": "hard", "group": "shifts", "particles": 2}, (1, 8, 8), "moves images"),
    ],
)
def test_what_cannot_be_is_refused(options, shape, message):
    facts = Facts(name="x", shape=shape, classes=0, sigma_data=1.0, box=(-1.0, 1.0), network={})
    with pytest.raises(ConfigurationError, match=message):
        METHODS.check("equivariant", options, "methods.x").objective(facts, {}, 0)


def test_training_images_are_no_test_images_and_keep_their_grey_values():
    spec, images = convert(torus.Spec, {}, "x"), torus.digits()
    marked = torch.arange(len(images)).double()[:, None, None, None].expand(images.shape)
    mine, test = torus._parts(spec, marked, 1400, 3)
    assert len({*mine.unique().tolist(), *test.unique().tolist()}) == len(mine) + len(test) == 1400 + spec.evaluation
    mine, _ = torus._parts(spec, images, 1400, 3)
    assert float((torus._dequantised(mine, 1) - mine).abs().max()) <= torus.LEVEL / 2
    assert set(((images + 1) / torus.LEVEL).unique().tolist()) == set(range(17))
