"""Flows of latents: the cross entropy, the mixed prediction, alternating steps, bounds, and what is refused."""

import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from hamflow import draws, flows, parameterisation
from hamflow.errors import ConfigurationError
from hamflow.flows.importance import HIGH, IMPORTANCE, LOW
from hamflow.methods.base import METHODS, Facts
from hamflow.methods.latent import LatentGenerator, LatentModel
from hamflow.methods.lsgm import INACTIVE_LOGIT, MixedField, cross_entropy, noise_loss, velocity_of_normal
from hamflow.methods.vae import VAEGenerator, VariationalAutoencoder
from hamflow.methods.velocity import VelocityField
from hamflow.networks.likelihoods import Normal
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

UNET = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
FACTS = Facts(name="digits", shape=(1, 8, 8), classes=0, sigma_data=0.6, box=(-1.0, 1.0), network=UNET)
PLAN = Training(train_kimg=0.032, batch=8, learning_rate=1e-3, report_kimg=0.008)
GAUSSIAN = ["oscillation", "diffusion", "flow_matching"]


@pytest.fixture(scope="module")
def images():
    return Samples(torch.from_numpy(draws.generator(0, "images").uniform(-1, 1, (64, 1, 8, 8))).float())


@pytest.fixture(scope="module")
def parents():
    return {"vae": VAEGenerator(METHODS.build("vae", channels=8, latent=2).objective(FACTS, {}, 0).vae.requires_grad_(False))}


class Ideal(nn.Module):
    """A network that says what the optimal velocity of data N(0, S) is, [N, *shape], under parameterisation `velocity`."""

    def __init__(self, flow, variance):
        super().__init__()
        self.flow, self.variance, self.unused = flow, variance, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def optimal(self, x, t):
        a, b, a_dot, b_dot = self.flow.coefficients(t.reshape(-1, *[1] * (x.ndim - 1)))
        return (self.variance * a * a_dot + b * b_dot) / (self.variance * a**2 + b**2) * x


class OfNormal(VelocityField):
    """The optimal velocity of data N(0, S)."""

    def __init__(self, flow, variance, shape):
        super().__init__(flow, parameterisation.build("velocity", flow, 1.0), Ideal(flow, variance), shape)

    def forward(self, x, t, label=None):
        return self.network.optimal(x, torch.as_tensor(t, dtype=x.dtype))


@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("variance", [1.0, 0.25, 3.0])
def test_the_cross_entropy_of_a_normal_encoder_and_a_normal_prior_is_its_closed_form(name, variance):
    """CE(N(m mu, m^2 tau^2 + s^2) | N(0, m^2 S + s^2)) at the earliest time, m^2 = 1 - s^2; the bound of its theorem leaves out
    KL(q(z_1 | z) | p(z_1)) at the latest. E over noise is exact by signs, over times by the midpoint rule."""
    flow = flows.build(name, **({"alpha": 1.0} if name == "oscillation" else {"horizon": 1e4} if name == "diffusion" else {}))
    mean, tau, count = torch.tensor([0.7, -1.2]), 0.4, 20_001
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    signs = [torch.tensor([i, j], dtype=torch.float64) for i in (-1, 1) for j in (-1, 1)]
    found = 0.0
    for first in signs:  # E of a quadratic function of two pairs of unit normal numbers
        z = (mean + tau * first).double().expand(count, 2)
        for second in signs:
            value = cross_entropy(OfNormal(flow, variance, (2,)), z, second.expand(count, 2), u)
            found += float(value.mean().detach()) / 16
    at = (1 - LOW) * variance + LOW
    second_moment = float(mean.double().square().sum()) + 2 * tau**2
    exact = 2 * math.log(2 * math.pi * at) / 2 + ((1 - LOW) * second_moment + 2 * LOW) / (2 * at)
    left = (1 - HIGH) * variance + HIGH
    latest = ((1 - HIGH) * second_moment + 2 * HIGH) / (2 * left) - 1 + math.log(left / HIGH)
    assert found + latest == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_mixed_prediction_at_its_start_is_exact_for_standard_normal_latents(name):
    """Whatever the network says, it has no weight; and V_N is the velocity whose noise is eps = s z_t."""
    flow = flows.build(name)
    network = nn.Conv2d(2, 2, 1)
    network.forward = lambda x, noise_label, label=None: 100 * torch.ones_like(x)
    field = MixedField(flow, parameterisation.build("velocity", flow, 1.0), network, (2, 3, 3), logit=INACTIVE_LOGIT)
    x, t = torch.randn(5, 2, 3, 3, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    field.logit.data.fill_(-math.inf)
    a, b, _, _ = flow.coefficients(t.reshape(-1, 1, 1, 1))
    z_t, s = x / (a**2 + b**2).sqrt(), b / (a**2 + b**2).sqrt()
    torch.testing.assert_close(flow.noise_from_velocity(x, field(x, t), t), s * z_t)
    torch.testing.assert_close(velocity_of_normal(flow, x, t), OfNormal(flow, 1.0, (2, 3, 3))(x, t))


def test_the_mixed_noise_is_the_mixture_of_the_noises():
    """eps = (1 - w) s z_t + w net, channel by channel: LSGM's form, for a network that predicts noise."""
    flow = flows.build("diffusion")
    network = nn.Conv2d(2, 2, 1).double()
    network.forward = lambda x, noise_label, label=None: x.sin()
    field = MixedField(flow, parameterisation.build("vp", flow, 1.0), network, (2, 1, 1))
    field.logit.data = torch.tensor([-3.0, 1.0]).reshape(2, 1, 1)
    x, t = torch.randn(4, 2, 1, 1, dtype=torch.float64), torch.tensor([0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    w, spread = field.logit.double().sigmoid(), (1 + t**2).sqrt().reshape(-1, 1, 1, 1)
    z_t, s = x / spread, t.reshape(-1, 1, 1, 1) / spread
    torch.testing.assert_close(flow.noise_from_velocity(x, field(x, t), t), (1 - w) * s * z_t + w * z_t.sin())


@pytest.mark.parametrize("weighting", IMPORTANCE)
def test_on_the_path_of_the_sde_importance_sampling_leaves_plain_velocity_regression(weighting):
    """c (a^2 + b^2) = c for the oscillation of unit frequency: every weighting is a law of times alone."""
    flow = flows.build("oscillation", alpha=1.0)
    field = OfNormal(flow, 0.5, (3,))
    rng = draws.generator(0, "plain")
    z, noise = (torch.from_numpy(rng.standard_normal((50, 3))) for _ in range(2))
    u = torch.from_numpy(rng.random(50))
    t = flow.time(IMPORTANCE[weighting].sigma(u))
    x_t, v_t = flow.push(z, noise, t)
    expected = IMPORTANCE[weighting].constant * (v_t - field(x_t, t)).square().sum(1)
    torch.testing.assert_close(noise_loss(field, z, noise, u, weighting), expected)


def test_alternating_steps_touch_only_their_own_weights(parents, images):
    objective = METHODS.build("lsgm").objective(FACTS, parents, 0)
    seen = []
    for turn in objective.turns:
        one = METHODS.build("lsgm").objective(FACTS, parents, 0)
        one.turns = (turn,)
        before = {name: p.clone() for name, p in one.named_parameters()}
        next(fit(one, images, PLAN, 0))
        seen.append({name for name, p in one.named_parameters() if not torch.equal(p, before[name])})
    players = [{name for name, _ in objective.named_parameters() if name.startswith(f"{p}.")} for p in ("vae", "prior")]
    assert all(moved for moved in seen)
    assert all(moved <= own for moved, own in zip(seen, players, strict=True))
    assert players[0] | players[1] == {name for name, _ in objective.named_parameters()}
    kept = parents["vae"].module.state_dict()
    assert all(torch.equal(kept[name], p) for name, p in VAEGenerator(objective.vae).module.state_dict().items())


def test_channels_that_the_encoder_does_not_use_keep_the_normal_prior(parents, images):
    objective = METHODS.build("lsgm", inactive=1e-4).objective(FACTS, parents, 0)
    last = objective.vae.encoder[-1]
    with torch.no_grad():
        last.weight[0::2] = 0  # mean and log variance of the first of two channels
        last.bias[0::2] = 0
    objective.begin(images)
    assert objective.prior.logit.flatten().tolist() == [INACTIVE_LOGIT, -3.0]


def test_latents_of_the_two_stage_model_have_unit_moments_in_every_channel(parents, images):
    options = {"flow": {"name": "oscillation"}, "parameterisation": "velocity", "times": {"law": "uniform"}}
    objective = METHODS.build("latent", **options).objective(FACTS, parents, 0)
    objective.begin(images)
    noise = torch.from_numpy(draws.generator(0, "z").standard_normal((100, *images.x.shape[:1], 2, 4, 4))).float()
    z = torch.stack([(objective.vae.draw(images.x, n) - objective.centre) / objective.spread for n in noise])
    torch.testing.assert_close(z.mean((0, 1, 3, 4)), torch.zeros(2), rtol=0, atol=0.02)
    torch.testing.assert_close(z.var((0, 1, 3, 4)), torch.ones(2), rtol=0.02, atol=0)
    before = {name: p.clone() for name, p in objective.vae.named_parameters()}
    state = State(objective, PLAN)
    list(fit(objective, images, PLAN, 0, state))
    assert all(torch.equal(p, before[name]) for name, p in objective.vae.named_parameters())


def test_the_bound_of_a_linear_model_with_its_exact_posterior_is_the_density():
    """x = w z + e, z ~ N(centre, spread^2): p(x) = N(w centre, w^2 spread^2 + scale^2), and the prior's ODE is exact."""
    w, scale, centre, spread = 0.8, 0.5, 0.3, 1.7
    precision = 1 / spread**2 + w**2 / scale**2
    encoder, decoder = nn.Linear(1, 2).double(), nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[w / scale**2 / precision], [0.0]]))
        encoder.bias.copy_(torch.tensor([centre / spread**2 / precision, -math.log(precision)]))
        decoder.weight.fill_(w)
    vae = VariationalAutoencoder(encoder, decoder, Normal(scale).double(), (1,), (1,))
    field = OfNormal(flows.build("oscillation", alpha=1.0), 1.0, (1,))
    model = LatentGenerator(LatentModel(vae, field, torch.tensor([centre]).double(), torch.tensor([spread]).double()))
    for x in (-0.4, 0.9):
        found = model.density_bound(torch.full((2000, 1), x, dtype=torch.float64), steps=2).values
        exact = torch.distributions.Normal(w * centre, math.hypot(w * spread, scale)).log_prob(torch.tensor(x))
        assert abs(float(found.mean() - exact)) < 3 * float(found.std()) / math.sqrt(len(found))


@pytest.mark.parametrize("kind", ["latent", "lsgm"])
def test_samples_are_solved_in_latent_space_then_decoded(kind, parents, images):
    options = {"flow": {"name": "oscillation", "alpha": 1.0}, "parameterisation": "velocity"}
    method = METHODS.build(kind, **options, **({"times": {"law": "uniform"}} if kind == "latent" else {}))
    objective = method.objective(FACTS, parents, 0)
    objective.begin(images)
    model = method.generator(objective.eval().requires_grad_(False))
    x, spent = model.sample(range(3), "multistep", 5)
    assert (x.shape, spent, hasattr(model, "score")) == ((3, 1, 8, 8), 5, False)
    z, _ = model.latent.sample(range(3), "multistep", 5)
    centre, spread = model.module.centre, model.module.spread
    torch.testing.assert_close(objective.vae.decode((centre + spread * z).float()).double(), x)
    _, spent = model.sample(range(3), "dopri5", "auto")
    assert spent > 5
    assert model.reconstruct(images.x[:3]).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("kind", ["latent", "lsgm"])
def test_a_latent_model_without_an_autoencoder_is_refused(kind, parents):
    options = {"flow": {"name": "oscillation"}, "parameterisation": "velocity"}
    method = METHODS.build(kind, **options, **({"times": {"law": "uniform"}} if kind == "latent" else {}))
    with pytest.raises(ConfigurationError, match="no autoencoder to start from[\\s\\S]*parents: {vae: METHOD}"):
        method.objective(FACTS, {}, 0)
    with pytest.raises(ConfigurationError, match="is no variational autoencoder"):
        method.objective(FACTS, {"vae": object()}, 0)


def test_flows_that_latents_cannot_have_are_refused(parents):
    walls = {"flow": {"name": "reflection"}, "parameterisation": "velocity"}
    with pytest.raises(ConfigurationError, match="moves data in a box, and latents have none"):
        METHODS.build("latent", **walls, times={"law": "uniform"}).objective(FACTS, parents, 0)
    for flow in ({"name": "pfgm"}, {"name": "oscillation_coloured"}):
        with pytest.raises(ConfigurationError, match="needs white normal noise"):
            METHODS.build("lsgm", flow=flow).objective(FACTS, parents, 0)


def test_classes_reach_the_prior(parents, images):
    method = METHODS.build("lsgm")
    objective = method.objective(Facts(**(FACTS.as_dict() | {"classes": 3})), parents, 0)
    rows = Samples(images.x, torch.from_numpy(np.arange(64) % 3))
    list(fit(objective, rows, replace(PLAN, learning_rate=3e-3), 0))
    objective.prior.logit.data.fill_(3.0)
    model = method.generator(objective.eval().requires_grad_(False))
    assert model.classes == 3
    one, other = (model.sample(range(2), "euler", 3, torch.full((2,), label))[0] for label in (0, 1))
    assert not torch.equal(one, other)
