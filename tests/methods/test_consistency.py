"""The kind `consistency`: its loss, its limits, the maps that it learns, and what it refuses."""

import itertools
import math

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from hamflow import draws, flows
from hamflow.draws import BatchDraws, SampleDraws
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import METHODS, Facts, Generator
from hamflow.methods.consistency import ConsistencyObjective
from hamflow.methods.velocity import FlowGenerator
from hamflow.training.fit import Batch, Samples, fitted
from hamflow.training.plan import Training

FACTS = Facts(
    name="line", shape=(1,), classes=0, sigma_data=1.0, box=(-3.0, 3.0), network={"kind": "mlp", "width": 64, "depth": 3}
)
FLOWS = {"diffusion": {"horizon": 40.0}, "oscillation": {"alpha": 1.0}, "flow_matching": {}}


def parent_of(flow, facts=FACTS, seed=0, **options):
    entry = {"flow": {"name": flow, **FLOWS.get(flow, {}), **options}, "times": {"law": "log_normal", "mean": -0.4, "std": 1.5}}
    scheme = "edm" if flow == "diffusion" else "velocity"
    method = METHODS.build("velocity", parameterisation=scheme, **entry)
    return method.generator(method.objective(facts, {}, seed))


def objective_of(parent, facts=FACTS, **options):
    return METHODS.build("consistency", **options).objective(facts, {"velocity": parent}, 0)


def batch_of(objective, x, step=0, label=None):
    return Batch(x, label, step, BatchDraws(0, "test", step, batch=len(x)), objective)


class Given(nn.Module):
    """The field whose consistency function is that of N(0, 1) data under diffusion: x / sqrt(1 + t^2)."""

    shape, classes = (1,), 0

    def __init__(self):
        super().__init__()
        self.flow = flows.build("diffusion", horizon=40.0)
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, label=None):
        return (x - x / (1 + torch.as_tensor(t) ** 2) ** 0.5) / t


@pytest.mark.parametrize("flow", FLOWS)
def test_at_time_zero_the_function_is_the_identity(flow):
    objective = objective_of(parent_of(flow))
    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(objective.function(x, 0.0, None), x, rtol=0, atol=0)


def test_the_tuning_starts_from_the_parent_and_leaves_it_alone():
    parent = parent_of("oscillation")
    before = [weight.clone() for weight in parent.module.parameters()]
    objective = objective_of(parent)
    for one, other in zip(objective.field.parameters(), before, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        next(objective.field.parameters()).add_(1)
    assert all(torch.equal(a, b) for a, b in zip(parent.module.parameters(), before, strict=True))


def test_the_earlier_time_goes_from_nought_towards_the_later_one():
    objective, u = objective_of(parent_of("oscillation"), stage_kimg=10.0), torch.linspace(0.01, 0.99, 50).double()
    later, earlier = objective.levels(u, 0.0)
    assert float(earlier[later < 2].max()) == 0
    ratios = [objective.levels(u, kimg)[1] / later for kimg in (0.0, 9.9, 10.0, 30.0, 70.0, 1000.0)]
    assert torch.equal(ratios[0], ratios[1])
    assert all(bool((b >= a).all()) for a, b in itertools.pairwise(ratios))
    torch.testing.assert_close(ratios[-1], torch.full_like(later, 0.999))
    expected = 1 - (1 + 8 / (1 + later.exp())) / 2**8
    torch.testing.assert_close(ratios[-2], expected)


def test_the_loss_is_the_published_one():
    """Under diffusion, written out: x_t = x_0 + t n, f = x - t V; the gradient goes through the later time alone."""
    objective = objective_of(parent_of("diffusion"), stage_kimg=1.0, along="data")
    x0 = torch.randn(32, 1, generator=torch.Generator().manual_seed(1))
    batch = batch_of(objective, x0, step=100)  # 3.2 kimg: stage 3
    n, u = batch.draw.normal("noise", (1,)), batch.draw.uniform("time")
    t = torch.exp(-0.4 + 2 * torch.special.ndtri(u))
    r = t * (1 - (1 + 8 * torch.sigmoid(-t)) / 2**4).clamp(min=0)
    t32, r32 = t.float(), r.float()
    field = objective.field
    with torch.no_grad():
        x_r = x0 + r32[:, None] * n
        target = x_r - r32[:, None] * field(x_r, r32)
    x_t = x0 + t32[:, None] * n
    square = (x_t - t32[:, None] * field(x_t, t32) - target).square()[:, 0]
    expected = ((square + 1e-6).sqrt() - 1e-3) / (t - r).float()
    found = objective.losses("consistency", batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = [weight for weight in field.parameters() if weight.requires_grad]
    gradients = [torch.autograd.grad(loss.sum(), weights, allow_unused=True) for loss in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class OfTheLaw(Given):
    """The velocity of N(0, 1) data under diffusion: trajectories x_t = x_0 sqrt(1 + t^2)."""

    def forward(self, x, t, label=None):
        t = torch.as_tensor(t).reshape(-1, 1)
        return t * x / (1 + t**2)


def test_the_step_along_the_field_has_a_local_error_of_third_order():
    objective = objective_of(FlowGenerator(OfTheLaw()))
    x, t = torch.linspace(-2, 2, 9).double()[:, None], torch.full((9,), 1.5).double()
    errors = []
    for h in (0.2, 0.1, 0.05):
        exact = x * ((1 + (1.5 - h) ** 2) / (1 + 1.5**2)) ** 0.5
        errors.append(float((objective._step(x, t, t - h, None) - exact).abs().max()))
    rates = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert rates == pytest.approx([3, 3], abs=0.3)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_tangent_is_the_derivative_of_the_function_along_its_trajectory(flow):
    """a df/dt by torch's forward derivative, of a network that has been moved away from its initial zeros; float64."""
    objective = objective_of(parent_of(flow), difference=1e-3)
    with torch.no_grad(), draws.seeded("cpu", 0, "test", "weights"):
        for weight in objective.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    objective.double()
    rows = torch.Generator().manual_seed(1)
    x, w = (torch.randn(16, 1, generator=rows, dtype=torch.float64) for _ in range(2))
    t = objective.field.flow.time(torch.logspace(-1, 1, 16, dtype=torch.float64))
    found = objective.tangent(objective.field, x, t, w)
    _, change = torch.func.jvp(lambda x, t: objective.function(x, t, None), (x, t), (w, torch.ones_like(t)))
    expected = objective.field.flow.coefficients(t[:, None])[0] * change
    assert float(((found - expected).norm() / expected.norm()).detach()) < 1e-3


def test_the_tangent_of_the_exact_function_along_the_field_is_zero():
    objective = objective_of(FlowGenerator(Given()))
    x, t = torch.linspace(-2, 2, 9).double()[:, None], torch.logspace(-1, 1, 9).double()
    given = lambda x, t: Given.forward(objective.field, x, t.reshape(-1, 1))  # noqa: E731
    assert float(objective.tangent(given, x, t, OfTheLaw()(x, t)).abs().max()) < 1e-4
    assert float(objective.tangent(given, x, t, torch.zeros_like(x)).abs().max()) > 1e-2


class Shifted(nn.Module):
    """Some velocity, and a weight of its own for each row."""

    classes = 0

    def __init__(self, n):
        super().__init__()
        self.flow = flows.build("oscillation", alpha=1.0)
        self.weight = nn.Parameter(torch.zeros(n, 1))

    def forward(self, x, t, label=None):
        return torch.sin(2 * x) + 0.3 * torch.as_tensor(t).reshape(-1, 1) + self.weight


def test_close_pairs_move_the_velocity_as_the_tangent_does():
    """d loss / dV of each row: -2 g / (N sigma_t) for a large `normalise` N, -a b g / c for pairs with a large c."""
    n, large = 64, 1e4
    x0 = torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
    moved, about = {}, {"along": "data", "mean": 0.0, "std": 0.5}
    options = {"tangent": {"normalise": large, "tangent_warmup_kimg": 0}, "pairs": {"huber": large, "stage_kimg": 1e-3}}
    for loss, more in options.items():
        objective = ConsistencyObjective(METHODS.build("consistency", loss=loss, **about, **more), Shifted(n), 1.0)
        batch = batch_of(objective, x0, step=100)
        (moved[loss],) = torch.autograd.grad(objective.losses("consistency", batch).sum(), [objective.field.weight])
    later, _ = objective.levels(batch.draw.uniform("time"), 6.4)
    a, b, _, _ = objective.field.flow.coefficients(objective.field.flow.time(later))
    expected = moved["tangent"][:, 0] * (later * a * b / 2).float()
    torch.testing.assert_close(moved["pairs"][:, 0], expected, rtol=0.02, atol=2e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("nfe", [1, 2])
def test_with_the_exact_function_samples_have_the_law_of_the_data(nfe):
    objective = objective_of(FlowGenerator(Given()))
    drawn, spent = METHODS.build("consistency").generator(objective).sample(range(4000), "consistency", nfe)
    assert spent == nfe
    assert float(drawn.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / 4000))
    assert float(drawn.mean()) == pytest.approx(0, abs=4 / math.sqrt(4000))


def test_a_sample_is_a_function_of_its_seed_and_the_second_noise_is_another():
    generator = METHODS.build("consistency").generator(objective_of(parent_of("oscillation")))
    whole, _ = generator.sample(range(10), "consistency", 2)
    generator.sampling = replace(generator.sampling, batch=3)
    torch.testing.assert_close(generator.sample(range(10), "consistency", 2)[0], whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(generator.sample(range(4, 6), "consistency", 2)[0], whole[4:6], rtol=0, atol=1e-12)
    first, again = SampleDraws([3]).normal("noise", (1,)), SampleDraws([3], "again").normal("noise", (1,))
    assert not torch.equal(first, again)


def learned(x, facts, flow="oscillation", kimg=512.0):
    """A consistency model of the law of points, from a field that has not been trained: stage 0 does that."""
    plan = Training(
        train_kimg=kimg, batch=256, learning_rate=3e-3, betas=(0.9, 0.99), warmup_kimg=2, ema_halflife_kimg=10, decay="cosine"
    )
    objective = objective_of(parent_of(flow, facts), facts, along="data", stage_kimg=kimg / 8, huber=1.0, mean=0.3)
    return METHODS.build("consistency").generator(fitted(objective, Samples(x.float()), plan, 0))


@pytest.mark.slow
def test_on_the_line_one_evaluation_is_the_quantile_map():
    """The flow's own map is monotone in one dimension and keeps the law: F_data^-1 of F_T."""
    law = GaussianMixture([0.4, 0.6], [[-1.0], [0.8]], [0.3, 0.4])
    drawn = law.sample(50_000, np.random.default_rng(0))
    model = learned(drawn, replace(FACTS, sigma_data=float(drawn.std())))
    flow, probabilities = model.flow, torch.linspace(0.02, 0.98, 49).double()
    starts = flow.terminal(torch.special.ndtri(probabilities)[:, None])
    with torch.no_grad():
        found = model.module.function(starts, flow.horizon, None)[:, 0]
    quantiles = torch.quantile(drawn[:, 0].double(), probabilities)
    assert float(starts[-1]) > float(starts[0])
    assert float((found - quantiles).abs().mean()) < 0.1 * float(drawn.std())


@pytest.mark.parametrize(
    ("parents", "facts", "message"),
    [
        (lambda: {}, FACTS, "no parent of this method has one"),
        (lambda: {"velocity": parent_of("oscillation")}, replace(FACTS, shape=(2,)), "parent's samples have shape"),
        (lambda: {"velocity": parent_of("reflection", speed=1.0, horizon=9.0, low=-3.0, high=3.0)}, FACTS, "reflection"),
    ],
)
def test_a_parent_that_does_not_fit_is_refused(parents, facts, message):
    with pytest.raises(ConfigurationError, match=message):
        METHODS.build("consistency").objective(facts, parents(), 0)


@pytest.mark.parametrize("samplers", [{}, {"heun": [9]}, {"consistency": [1, 4]}])
def test_samplers_that_it_does_not_have_are_refused_before_any_job(samplers):
    with pytest.raises(ConfigurationError, match="one or two evaluations"):
        METHODS.build("consistency").check_samplers(samplers)


def test_what_it_cannot_do_is_said():
    generator = METHODS.build("consistency").generator(objective_of(parent_of("oscillation")))
    assert isinstance(generator, Generator)
    for sampler, nfe in (("heun", 9), ("consistency", 3)):
        with pytest.raises(NotOffered, match="no sampler"):
            generator.sample(range(2), sampler, nfe)
    x = torch.zeros(1, 1)
    for ask in (lambda: generator.velocity(x, 0.1), lambda: generator.score(x, 0.1), lambda: generator.log_density(x)):
        with pytest.raises(NotOffered, match="a consistency model has no"):
            ask()
