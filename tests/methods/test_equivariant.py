"""The kind `equivariant`: its row by the one loop, exact resuming, what it can do, and how it fails."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from hamflow import config
from hamflow.equivariant import rotation
from hamflow.errors import ConfigurationError, DivergenceError, NotOffered
from hamflow.laws.mixtures import GaussianMixture
from hamflow.laws.rings import RingsDensity
from hamflow.methods.base import METHODS, Facts, Generator, load
from hamflow.training.fit import Samples, fit, fitted
from hamflow.training.plan import Player, Training
from hamflow.training.state import State
from hamflow.verbs._training import train
from hamflow.verbs.sample import sample

FACTS = Facts(name="plane", shape=(2,), classes=0, sigma_data=1.9, box=(-5.0, 5.0), network={})
PLAN = Training(train_kimg=3.84, batch=64, learning_rate=8e-3, betas=(0.9, 0.999), ema_halflife_kimg=0.4, gradient_clip=5.0)
SMALL = {"width": 16, "hamiltonians": 1, "steps": 2}
PARTICLES = {"particles": 3, "group": "euclidean", "constraint": "hard", "base": "mean_free", "encoder": "particles"}
KINDS = {
    "none": {},
    "soft": {"constraint": "soft"},
    "hard": {"constraint": "hard", "encoder": "radial"},
    "quadratic": {"kinetic": "quadratic", "encoder": "diagonal", "base": "soft_uniform", "scheme": "yoshida4"},
    "importance": {"constraint": "soft", "momenta": 3},
    "particles": PARTICLES,
}


def rings(n, seed=0):
    return RingsDensity().sample(n, np.random.default_rng(seed)).float()


def triangles(n, seed=0):
    """Three particles in the plane at the corners of a triangle that is turned at random, but for noise."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, (n, 1)) + 2 * np.pi / 3 * np.arange(3)
    corners = 2.5 * np.stack([np.cos(angles), np.sin(angles)], 2) + 0.3 * rng.standard_normal((n, 3, 2))
    return torch.from_numpy(corners.reshape(n, 6)).float()


def facts_of(options):
    return replace(FACTS, shape=(6,)) if "particles" in options else FACTS


def rows_of(options, n=600):
    return Samples(triangles(n) if "particles" in options else rings(n))


def build(options, facts=FACTS, seed=0):
    method = METHODS.build("equivariant", **SMALL | options)
    return method, method.objective(facts, {}, seed)


def every_kind(test):
    return pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)(test)


@every_kind
def test_a_broken_training_goes_on_to_the_same_bits(options):
    """With microbatches, whose residuals an update collects, and every buffer and player."""
    plan, rows, facts = replace(PLAN, train_kimg=0.384, microbatch=25), rows_of(options), facts_of(options)
    *_, state = fit(build(options, facts)[1], rows, plan, 0)
    whole = state.tensors()
    for state in fit(build(options, facts)[1], rows, plan, 0):
        if state.step == 3:
            break
    resumed = State(build(options, facts, seed=5)[1], plan)
    resumed.restore({name: tensor.clone() for name, tensor in state.tensors().items()}, state.progress())
    *_, state = fit(resumed.objective, rows, plan, 0, resumed)
    found = state.tensors()
    assert found.keys() == whole.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)


@every_kind
def test_training_raises_the_bound_and_the_generator_samples(options):
    method, objective = build(options, facts_of(options))
    test = rows_of(options, 500).x
    before = method.generator(copy.deepcopy(objective)).log_density(test, 16).mean()
    generator = method.generator(fitted(objective, rows_of(options, 4000), PLAN, 0))
    assert float(generator.log_density(test, 16).mean()) > float(before) + 0.1
    assert isinstance(generator, Generator)
    samples, nfe = generator.sample(range(7), "direct", 1)
    assert (samples.shape, samples.dtype, nfe) == ((7, *generator.shape), torch.float64, 1)
    torch.testing.assert_close(generator.sample(range(3, 5), "direct", 1)[0], samples[3:5], rtol=0, atol=1e-5)
    with pytest.raises(NotOffered, match="'direct' with nfe 1"):
        generator.sample(range(2), "heun", 35)


def test_the_multiplier_holds_the_residual_down():
    """Against the same training with next to no multiplier; the reports tell both."""
    plan = replace(PLAN, train_kimg=5.12, report_kimg=5.12, decay="none", players={"multiplier": Player(learning_rate=0.1)})
    rows, residuals = rows_of({}, 6000), {}
    tight = {"constraint": "soft", "tolerance": 0.02, "multiplier": 1.0, "limit": 100.0, "features": "plain"}
    for name, options in {"free": tight | {"multiplier": 1e-9, "limit": 1e-9}, "held": tight}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            *_, state = fit(build(options)[1], rows, plan, 0)
        residuals[name] = float(state.objective.multiplier.average)
        assert {"residual", "multiplier", "multiplier_loss", "loss"} <= state.record.keys()
    assert residuals["held"] < 0.5 * residuals["free"]


def test_a_hard_constraint_makes_the_density_and_the_samples_symmetric():
    method, objective = build(KINDS["hard"])
    generator = method.generator(fitted(objective, rows_of({}, 4000), PLAN, 0))
    x, noise = rings(50).double(), torch.randn(20, 50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density, turned = generator.module.double(), rotation(2).move(x, x, 1.1)[0]
    turned_noise = rotation(2).move(noise, noise, 1.1)[1]
    with torch.no_grad():
        torch.testing.assert_close(density.bound(turned, turned_noise), density.bound(x, noise), rtol=0, atol=1e-9)


def test_normal_data_are_learned_to_their_entropy():
    law = GaussianMixture([1.0], [[0.0, 0.0]], [0.8])
    data = law.sample(20_000, np.random.default_rng(0)).float()
    method, objective = build({"gain": 1.0}, replace(FACTS, sigma_data=0.8))
    generator = method.generator(fitted(objective, Samples(data), replace(PLAN, train_kimg=6.4), 0))
    x = law.sample(2000, np.random.default_rng(1)).float()
    assert float((law.log_prob(x) - generator.log_density(x)).mean()) == pytest.approx(0, abs=0.03)


def test_it_trains_and_samples_as_a_row_of_the_table(prepared, tiny_config, tmp_path):
    """Through the verbs: the parameters' own entry, from its specification to the samples that are evaluated."""
    spec = config.training_spec(tiny_config, "checkerboard", "equivariant")
    assert spec["kind"] == "equivariant"
    spec["training"]["train_kimg"] = 0.5
    checkpoint = train(spec, prepared / "checkerboard", 0, tmp_path / "c", "cpu")
    settings = config.sampling_spec(tiny_config, "checkerboard", "equivariant")
    assert settings["settings"] == [["direct", 1]]
    sample(settings | {"n_samples": 20}, checkpoint, prepared / "checkerboard", 0, tmp_path / "s", "cpu")
    assert np.load(tmp_path / "s" / "direct-nfe1.npy").shape == (20, 2)
    generator, x = load(checkpoint), torch.zeros(3, 2)
    assert bool(generator.log_density(x).isfinite().all())
    assert not any(weight.requires_grad for weight in generator.module.parameters())


def test_data_that_lack_the_symmetry_are_warned_of():
    modes = Samples(
        GaussianMixture([0.5, 0.5], [[2.0, 0.0], [-2.0, 0.0]], [0.5, 0.5]).sample(600, np.random.default_rng(0)).float()
    )
    plan = replace(PLAN, train_kimg=0.256, batch=256)
    with pytest.warns(UserWarning, match="not invariant under 'J_12'.*`constraint: none`"):
        fitted(build({"constraint": "soft"})[1], modes, plan, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(build({"constraint": "soft"})[1], rows_of({}), plan, 0)
        fitted(build({})[1], modes, plan, 0)


def test_a_multiplier_that_is_of_no_avail_is_warned_of():
    plan = replace(PLAN, train_kimg=1.28)
    options = {"constraint": "soft", "multiplier": 0.1, "limit": 0.1, "tolerance": 1e-6}
    with pytest.warns(UserWarning, match="multiplier is at its limit 0.1.*stays above the tolerance"):
        fitted(build(options)[1], rows_of({}), plan, 0)


def test_energies_without_bound_end_the_training_with_its_advice():
    _, objective = build({})
    with torch.no_grad():
        objective.density.flow.hamiltonians[0].potential.last.weight.fill_(math.nan)
    with pytest.raises(DivergenceError, match=r"(?s)turn 'density' of step 0.*`step` or `gain`"):
        fitted(objective, rows_of({}), PLAN, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"constraint": "hrad"}, "hard"),
        ({"group": "rotation"}, "rotations"),
        ({"scheme": "leapfog"}, "leapfrog"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"steps": 0}, "steps"),
        ({"base": "mean_free"}, "needs base mean_free and encoder particles together"),
        ({**PARTICLES, "constraint": "soft"}, "takes constraint hard"),
        ({"base": "soft_uniform", "spread": 2.0}, "that of base normal"),
    ],
)
def test_impossible_options_are_refused_before_any_job(options, words):
    with pytest.raises(ConfigurationError, match=words):
        METHODS.check("equivariant", options)


@pytest.mark.parametrize(
    ("options", "facts", "words"),
    [
        ({"constraint": "hard", "group": "translations"}, FACTS, "(?s)not invariant under 'p_1'.*Lemma 1.*mean_free"),
        ({"constraint": "soft", "base": "soft_uniform"}, FACTS, "(?s)not invariant under 'J_12'.*no box"),
        ({"constraint": "soft"}, replace(FACTS, shape=(1,)), "rotations need a plane"),
        ({"particles": 3}, FACTS, "(?s)`particles` = 3, but data 'plane' have 2 coordinates.*divisor"),
        (PARTICLES | {"particles": 1}, FACTS, "(?s)at least 2 particles"),
        ({"multiplier": 20.0, "constraint": "soft"}, FACTS, "beyond its limit"),
        ({}, replace(FACTS, classes=3), "plane.conditional"),
    ],
)
def test_a_constraint_that_cannot_hold_is_refused_with_its_reason(options, facts, words):
    with pytest.raises(ConfigurationError, match=words):
        build(options, facts)
