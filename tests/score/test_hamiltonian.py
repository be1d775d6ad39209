"""Hamiltonian score matching: what it learns, that it resumes exactly, and how it fails."""

import dataclasses

import numpy as np
import pytest
import torch

from hamflow.errors import CheckpointError, ConfigurationError, DivergenceError
from hamflow.files import load_tensors
from hamflow.laws.gaussian_toy import GaussianToy
from hamflow.score import (
    HamiltonianScoreMatching,
    HamiltonianSettings,
    ScoreField,
    VelocityPredictor,
    build_network,
)
from hamflow.score.fields import FORMS

PLAIN = {"kind": "small", "width": 32, "depth": 2}
SHORT = HamiltonianSettings(steps=6, batch=32, state_every=2)


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


def gaussian(s):
    return lambda n, rng: s * torch.from_numpy(rng.standard_normal((n, 1)))


def learner(plane, settings, seed=0, form="scaled"):
    force = ScoreField(build_network(PLAIN, (2,), seed=1))
    critic = VelocityPredictor(build_network(PLAIN, (2,), seed=2), form, settings.horizon)
    return HamiltonianScoreMatching(force, critic, plane.sample, settings, seed)


def score_error(plane, force):
    x = plane.sample(4000, np.random.default_rng(9))
    with torch.no_grad():
        return float((force(x.float()) - plane.score(x)).square().sum(1).mean())


def test_with_the_optimal_predictor_the_force_becomes_the_score():
    s, force = 0.8, Linear(0.0)
    settings = HamiltonianSettings(steps=150, learning_rate=0.1, batch=256, critic_steps=1, betas=(0.5, 0.9))
    training = HamiltonianScoreMatching(force, OptimalPredictor(force, s), gaussian(s), settings)
    training.train()
    assert float(force.a.detach()) == pytest.approx(1 / s**2, rel=0.01)


@pytest.mark.parametrize("form", FORMS)
def test_min_max_learns_the_score_of_a_mixture(plane, form):
    training = learner(plane, HamiltonianSettings(steps=250, batch=64, learning_rate=3e-3), form=form)
    start = score_error(plane, training.average["force"])
    training.train()
    assert score_error(plane, training.average["force"]) < 0.5 * start


def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(plane, tmp_path):
    whole = learner(plane, SHORT)
    whole.train()
    state = tmp_path / "state.safetensors"
    learner(plane, SHORT).train(until=3, state=state)
    resumed = learner(plane, SHORT)
    lines = []
    resumed.train(state=state, report=lines.append)
    assert [line["step"] for line in lines] == [4, 5, 6]
    for name, tensor in whole.state()[0].items():
        assert torch.equal(tensor, resumed.state()[0][name]), name


def test_draws_depend_on_seed_and_step_alone(plane):
    one, other = learner(plane, SHORT), learner(plane, SHORT, seed=5)
    torch.manual_seed(1)
    first = one.draw(3, 0)
    torch.manual_seed(2)
    again = one.draw(3, 0)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.v, again.v)
    assert not torch.equal(first.v, one.draw(4, 0).v)
    assert not torch.equal(first.v, other.draw(3, 0).v)
    half = SHORT.batch
    assert torch.equal(first.v[:half], -first.v[half:])
    assert torch.equal(first.x[:half], first.x[half:])


@pytest.mark.parametrize("law", ["uniform", "log_uniform"])
def test_times_follow_their_law(plane, law):
    settings = dataclasses.replace(SHORT, time_law=law, batch=20_000, antithetic=False, horizon=0.5)
    u = learner(plane, settings).draw(0, 0).t.double().numpy() / 0.5
    if law == "log_uniform":
        u = 1 + np.log(u) / np.log(100)
    grid = np.linspace(0, 1, 21)[1:-1]
    z = ((u[:, None] < grid).mean(0) - grid) / np.sqrt(grid * (1 - grid) / len(u))
    assert np.abs(z).max() < 3.5


def test_weights_make_up_for_the_square_of_time(plane):
    training = learner(plane, SHORT)
    t = torch.linspace(0.0, 0.6, 7)
    floor = SHORT.weight_floor * SHORT.horizon**2
    torch.testing.assert_close(1 / training.weight(t), t**2 + floor)
    constant = learner(plane, dataclasses.replace(SHORT, weight="constant"))
    assert torch.equal(constant.weight(t), torch.ones_like(t))


def test_a_diverging_run_stops_with_its_diagnosis_and_keeps_the_last_good_state(plane, tmp_path):
    state = tmp_path / "state.safetensors"
    training = learner(plane, SHORT)
    training.train(until=2, state=state)
    good = training.state()[0]
    training.source = lambda n, rng: 1e9 * plane.sample(n, rng)  # far out the force drives them farther still
    with pytest.raises(DivergenceError, match=r"update 3 of 6.*trajectories run away.*velocity.*times") as caught:
        training.train()
    assert "update 2" in str(caught.value)
    for name, tensor in training.state()[0].items():
        assert torch.equal(tensor, good[name]), name
    kept, metadata = load_tensors(state)
    assert metadata["step"] == 2
    assert all(value.isfinite().all() for value in kept.values())
    cured, whole = learner(plane, SHORT), learner(plane, SHORT)
    cured.train(state=state)
    whole.train()
    for name, tensor in whole.state()[0].items():  # what was kept is as good as never having diverged
        assert torch.equal(tensor, cured.state()[0][name]), name


def test_a_critic_that_leaves_the_numbers_is_named(plane, tmp_path):
    training = learner(plane, SHORT)
    with torch.no_grad():
        training.critic.network.layers[-1].bias.fill_(float("nan"))
    with pytest.raises(DivergenceError, match="the critic update; weighted gain nan"):
        training.train(state=tmp_path / "state.safetensors")


def test_a_learning_rate_that_is_far_too_large_diverges_and_says_so(plane, tmp_path):
    settings = dataclasses.replace(SHORT, learning_rate=1e3, gradient_clip=0.0, steps=20)
    state = tmp_path / "state.safetensors"
    with pytest.raises(DivergenceError, match="kept in"):
        learner(plane, settings).train(state=state)
    assert all(value.isfinite().all() for value in load_tensors(state)[0].values())


def test_a_state_of_another_run_is_refused(plane, tmp_path):
    state = tmp_path / "state.safetensors"
    learner(plane, SHORT).train(until=1, state=state)
    with pytest.raises(CheckpointError, match="another seed"):
        learner(plane, SHORT, seed=1).train(state=state)
    with pytest.raises(CheckpointError, match="other settings"):
        learner(plane, dataclasses.replace(SHORT, horizon=0.5)).train(state=state)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"horizon": 0.0}, "horizon.*every score"),
        ({"horizon": float("nan")}, "horizon"),
        ({"critic_steps": 0}, "critic_steps.*never fitted"),
        ({"integration_steps": 0}, "integration_steps"),
        ({"steps": 0}, "steps"),
        ({"batch": True}, "batch"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"ema": 1.0}, "ema"),
        ({"gradient_clip": float("nan")}, "gradient_clip"),
        ({"scheme": "leapfog"}, "leapfrog"),
        ({"weight": "inverse"}, "inverse_square"),
        ({"critic_step": 3}, "critic_steps"),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        HamiltonianSettings.from_mapping(settings)


def test_settings_survive_a_file():
    assert HamiltonianSettings.from_mapping(SHORT.as_dict()) == SHORT


def test_a_predictor_of_unknown_form_or_without_its_force_is_refused():
    with pytest.raises(ConfigurationError, match="residual"):
        VelocityPredictor(build_network(PLAIN, (2,), seed=0), "residuals")
    with pytest.raises(ConfigurationError, match="given the force"):
        VelocityPredictor(build_network(PLAIN, (2,), seed=0), "residual")(torch.zeros(3, 2), torch.ones(3))


def test_images_are_learned_with_a_unet():
    unet = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    force = ScoreField(build_network(unet, (1, 4, 4), seed=0))
    critic = VelocityPredictor(build_network(unet, (1, 4, 4), seed=1), "scaled", 0.6)
    source = lambda n, rng: torch.from_numpy(rng.standard_normal((n, 1, 4, 4)))  # noqa: E731
    settings = HamiltonianSettings(steps=25, batch=16, learning_rate=1e-2, integration_steps=2, ema=0.9)
    HamiltonianScoreMatching(force, critic, source, settings).train()
    x = source(200, np.random.default_rng(1)).float()
    with torch.no_grad():
        assert float((force(x) + x).square().mean()) < 0.6 * float(x.square().mean())
