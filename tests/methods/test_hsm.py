"""Hamiltonian score matching: what it learns, how it draws, and how it fails."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from hamflow.draws import BatchDraws
from hamflow.errors import ConfigurationError, DivergenceError, NotOffered
from hamflow.laws.gaussian_toy import GaussianToy
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import METHODS, Facts
from hamflow.methods.hsm import Form, HamiltonianObjective, HamiltonianScoreMatching
from hamflow.score.fields import VelocityPredictor
from hamflow.training.fit import Batch, Samples, fit, fitted
from hamflow.training.plan import Player, Training
from hamflow.training.state import State

SMALL = {"kind": "small", "width": 32, "depth": 2}
UNET = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
FACTS = Facts(name="plane", shape=(2,), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network=SMALL)
PLAN = Training(train_kimg=16, batch=64, learning_rate=3e-3, betas=(0.5, 0.999), ema_halflife_kimg=4, ema_rampup=0.07)
SHORT = replace(PLAN, train_kimg=6 * 0.032, batch=32)


@pytest.fixture(scope="module")
def plane():
    """The pilot mixture of three components in the plane."""
    return GaussianMixture([0.4, 0.3, 0.3], [[1.5, 0.0], [-1.0, 1.3], [-1.0, -1.3]], [0.6, 0.6, 0.6])


class Linear(torch.nn.Module):
    """F = -a x."""

    def __init__(self, a):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(a))

    def forward(self, x, t=0.0):
        return -self.a * x


class OptimalPredictor(torch.nn.Module):
    """E[v_t | x_t] for Gaussian data under the linear force it is given: a critic that needs no training."""

    def __init__(self, force, s):
        super().__init__()
        self.force, self.s = [force], s
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, force=None):
        slope = GaussianToy(self.s, float(self.force[0].a.detach())).slope(t.detach())
        return slope.to(x)[:, None] * x + 0 * self.unused


def samples(plane, plan=PLAN, factor=1.0):
    return Samples(factor * plane.sample(plan.steps * plan.batch, np.random.default_rng(3)).float())


def score_error(plane, force):
    x = plane.sample(4000, np.random.default_rng(9))
    with torch.no_grad():
        return float((force(x.float()) - plane.score(x)).square().sum(1).mean())


def batch_of(n, seed=0, step=0, repeat=0):
    draw = BatchDraws(seed, "training", "critic", step, repeat, batch=n)
    return Batch(torch.linspace(-1, 1, 2 * n).view(n, 2), None, step, draw, None)


def test_with_the_optimal_predictor_the_force_becomes_the_score():
    s, force = 0.8, Linear(0.0)
    plan = Training(train_kimg=150 * 0.256, batch=256, learning_rate=0.1, betas=(0.5, 0.9))
    x = s * torch.from_numpy(np.random.default_rng(0).standard_normal((plan.steps * plan.batch, 1))).float()
    method = HamiltonianScoreMatching(critic_steps=1)
    fitted(HamiltonianObjective(method, force, OptimalPredictor(force, s)), Samples(x), plan, 0)
    assert float(force.a.detach()) == pytest.approx(1 / s**2, rel=0.01)


@pytest.mark.parametrize("form", Form.__args__)
def test_min_max_learns_the_score_of_a_mixture(plane, form):
    objective = HamiltonianScoreMatching(form=form).objective(FACTS, {}, 0)
    start = score_error(plane, objective.force)
    averaged = fitted(objective, samples(plane), PLAN, 0)
    assert score_error(plane, averaged.force) < 0.5 * start


def test_the_generator_is_the_averaged_force(plane):
    method = METHODS.build("hsm", critic_steps=1)
    averaged = fitted(method.objective(FACTS, {}, 0), samples(plane, SHORT), SHORT, 0)
    generator, x = method.generator(averaged), torch.ones(3, 2, dtype=torch.float64)
    torch.testing.assert_close(generator.score(x), averaged.force(x.float()).double())
    with pytest.raises(NotOffered, match="no sampler"):
        generator.sample(range(3), "heun", 5)
    with pytest.raises(NotOffered, match="noise level 0, not at 0.1"):
        generator.score(x, 0.1)


def test_starts_come_in_antithetic_pairs():
    objective = HamiltonianScoreMatching().objective(FACTS, {}, 0)
    t, x, v = objective.start(batch_of(32))
    assert torch.equal(v[:32], -v[32:])
    assert torch.equal(x[:32], x[32:])
    assert torch.equal(t[:32], t[32:])


@pytest.mark.parametrize("law", ["uniform", "log_uniform"])
def test_times_follow_their_law(law):
    objective = HamiltonianScoreMatching(time_law=law, antithetic=False, horizon=0.5).objective(FACTS, {}, 0)
    u = np.sort(objective.start(batch_of(1000))[0].double().numpy() / 0.5)
    if law == "log_uniform":
        u = 1 + np.log(u) / np.log(100)
    assert np.abs(u - (np.arange(1000) + 0.5) / 1000).max() <= 0.5 / 1000 + 1e-6  # one in each thousandth


def test_weights_make_up_for_the_square_of_time():
    method = HamiltonianScoreMatching()
    t = torch.linspace(0.0, 0.6, 7)
    floor = method.weight_floor * method.horizon**2
    torch.testing.assert_close(1 / method.objective(FACTS, {}, 0).weight(t), t**2 + floor)
    constant = HamiltonianScoreMatching(weight="constant").objective(FACTS, {}, 0)
    assert torch.equal(constant.weight(t), torch.ones_like(t))


def test_the_critic_raises_what_the_force_lowers():
    objective = HamiltonianScoreMatching().objective(FACTS, {}, 0)
    batch = batch_of(16)
    torch.testing.assert_close(objective.losses("critic", batch), -objective.losses("force", batch))


def test_the_critic_sees_the_force_as_a_constant():
    """Envelope theorem: with the residual form the force enters V, but no gradient of its weights through V."""
    objective = HamiltonianScoreMatching(form="residual").objective(FACTS, {}, 0)
    t, x, v = objective.start(batch_of(16))
    gradient = torch.autograd.grad(objective.gain(t, x, v).sum(), list(objective.force.parameters()), allow_unused=True)
    assert all(part is None for part in gradient)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda o: o.critic.network.layers[-1].bias.data.fill_(float("nan")), "met loss nan .* turn 'critic' of step 0"),
        (
            lambda o: [p.data.mul_(1e4) for p in o.force.parameters()],
            "turn 'critic' of step 0",
        ),  # far out the force drives them farther
    ],
    ids=["nan", "runaway"],
)
def test_a_diverging_run_stops_with_its_diagnosis_and_keeps_its_weights(plane, spoil, words):
    objective = HamiltonianScoreMatching().objective(FACTS, {}, 0)
    spoil(objective)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    with pytest.raises(DivergenceError, match=f"(?s){words}.*`horizon`.*runaway"):
        fitted(objective, samples(plane, SHORT), SHORT, 0)
    for name, value in objective.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_learning_rate_that_is_far_too_large_diverges_and_says_so(plane):
    plan = replace(PLAN, players={"force": Player(learning_rate=1e3, gradient_clip=0.0)})
    with pytest.raises(DivergenceError, match="lower `learning_rate`"):
        fitted(HamiltonianScoreMatching().objective(FACTS, {}, 0), samples(plane, plan), plan, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"horizon": 0.0}, "horizon"),
        ({"horizon": "far"}, "horizon"),
        ({"critic_steps": 0}, "critic_steps"),
        ({"integration_steps": 0}, "integration_steps"),
        ({"scheme": "leapfog"}, "leapfrog"),
        ({"weight": "inverse"}, "inverse_square"),
        ({"form": "residuals"}, "residual"),
        ({"critic_step": 3}, "critic_steps"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        METHODS.build("hsm", **options)


def test_a_predictor_of_unknown_form_or_without_its_force_is_refused():
    from hamflow import networks

    with pytest.raises(ConfigurationError, match="residual"):
        VelocityPredictor(networks.build(SMALL, (2,)), "residuals")
    with pytest.raises(ConfigurationError, match="given the force"):
        VelocityPredictor(networks.build(SMALL, (2,)), "residual")(torch.zeros(3, 2), torch.ones(3))


def test_conditional_scores_are_refused():
    with pytest.raises(ConfigurationError, match="plane.conditional"):
        HamiltonianScoreMatching().objective(replace(FACTS, classes=3), {}, 0)


def test_images_are_learned_with_a_unet():
    facts = replace(FACTS, shape=(1, 4, 4), network=UNET)
    plan = Training(train_kimg=25 * 0.016, batch=16, learning_rate=1e-2, betas=(0.5, 0.999), ema_halflife_kimg=0.1)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((600, 1, 4, 4))).float()
    averaged = fitted(HamiltonianScoreMatching(integration_steps=2).objective(facts, {}, 0), Samples(x[:400]), plan, 0)
    with torch.no_grad():
        assert float((averaged.force(x[400:]) + x[400:]).square().mean()) < 0.6 * float(x[400:].square().mean())


def test_reports_tell_both_losses(plane):
    objective = HamiltonianScoreMatching().objective(FACTS, {}, 0)
    *_, state = fit(objective, samples(plane, SHORT), SHORT, 0, State(objective, SHORT))
    assert state.record.keys() == {"kimg", "critic_loss", "loss", "learning_rate"}
