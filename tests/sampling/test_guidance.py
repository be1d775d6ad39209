"""Classes asked for, classes left out, and guidance; of velocities that are known exactly, and of a small trained model."""

import pytest
import torch
from torch import nn

from hamflow import config, flows, networks
from hamflow.draws import BatchDraws, unit_noise
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import METHODS, Facts, Sampling
from hamflow.methods.velocity import FlowGenerator
from hamflow.networks.base import NETWORKS
from hamflow.sampling import steps_for
from hamflow.training.changes import UNLABELLED, Changes
from hamflow.training.fit import Batch, Samples, fitted
from hamflow.training.plan import Training

MEANS = torch.tensor([[4.0, 0.0], [-2.0, 3.0], [-2.0, -3.0]], dtype=torch.float64)
SD = 0.4


class Exact(nn.Module):
    """The velocity of a class of normal data, or of all three for label -1, under the oscillation."""

    shape, classes = (2,), 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.flow = flows.build("oscillation", alpha=0.5)
        laws = [GaussianMixture([1.0], MEANS[k : k + 1], [SD]) for k in range(3)]
        laws.append(GaussianMixture([1 / 3] * 3, MEANS, [SD] * 3))
        self.velocities = [law.velocity_under(self.flow) for law in laws]

    def forward(self, x, t, label=None):
        of_each = torch.stack([velocity(x, t) for velocity in self.velocities])
        return of_each[label, torch.arange(len(x))]


def exact(guidance=1.0, unlabelled=True):
    generator = FlowGenerator(Exact(), unlabelled)
    generator.sampling = Sampling(sigma_min=0.01, sigma_max=40.0, guidance=guidance)
    return generator


def nearest(samples):
    return torch.cdist(samples.double(), MEANS).argmin(1)


def test_samples_are_of_the_classes_asked_for():
    label = torch.tensor([2, 0, 0, 1, 2] * 20)
    samples, spent = exact().sample(range(100), "heun", 17, label)
    assert torch.equal(nearest(samples), label)
    assert spent == 17
    shift = samples - MEANS[label]
    assert float(shift.mean().abs()) < 4 * SD / 200**0.5
    assert float(shift.std()) == pytest.approx(SD, rel=0.2)


def test_without_labels_the_class_is_the_seed_modulo_their_number():
    seeds = range(5, 35)
    found, _ = exact().sample(seeds, "heun", 9)
    assert torch.equal(found, exact().sample(seeds, "heun", 9, torch.tensor([seed % 3 for seed in seeds]))[0])
    assert torch.equal(nearest(found).bincount(), torch.tensor([10, 10, 10]))


def test_without_a_class_samples_are_of_all():
    found, spent = exact().sample(range(300), "heun", 17, torch.full((300,), UNLABELLED))
    assert spent == 17
    assert (nearest(found).bincount() - 100).abs().max() < 4 * (300 * 2 / 9) ** 0.5


@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guidance_extrapolates_from_all_classes_to_one(guidance):
    """One Euler step from the horizon T: x_0 = x_T - T (V + w (V_class - V))."""
    label, generator = torch.tensor([0, 1, 2, 1]), exact(guidance)
    found, spent = generator.sample(range(4), "euler", 2, label)
    flow, field = generator.flow, generator.module
    start, t = flow.terminal(unit_noise(range(4), (2,))), torch.tensor(flow.horizon, dtype=torch.float64)
    every, one = field(start, t, torch.full((4,), UNLABELLED)), field(start, t, label)
    torch.testing.assert_close(found, start - t * (every + guidance * (one - every)), rtol=1e-12, atol=1e-12)
    assert spent == 2


def test_guidance_one_is_the_conditional_model():
    """And costs what it costs; guidance that is nearly 1 gives nearly its samples."""
    plain, spent = exact().sample(range(9), "heun", 9)
    one, same = exact(1.0).sample(range(9), "heun", 9)
    assert torch.equal(plain, one)
    assert spent == same == 9
    nearly, twice = exact(1 + 1e-9).sample(range(9), "heun", 18)
    torch.testing.assert_close(nearly, one, rtol=0, atol=1e-6)
    assert twice == 18


def test_a_guided_budget_counts_both_evaluations():
    assert [steps_for("heun", 34, 2), steps_for("multistep", 18, 2), steps_for("rk4", 16, 2)] == [9, 9, 2]
    with pytest.raises(ConfigurationError, match=r"4\*steps - 2(.|\n)*34 or 38"):
        exact(2.0).sample(range(3), "heun", 35)
    _, plain = exact().sample(range(6), "dopri5", "auto")
    calls, field = [], exact(1 + 1e-9)
    forward = field.module.forward
    field.module.forward = lambda *a: calls.append(1) or forward(*a)
    _, guided = field.sample(range(6), "dopri5", "auto")
    assert guided == len(calls) == 2 * plain


UNCONDITIONAL = METHODS.build("velocity", flow={"name": "oscillation"}, parameterisation="velocity", times={"law": "uniform"})
POINTS = Facts(name="points", shape=(2,), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network={"kind": "mlp", "width": 8})


@pytest.mark.parametrize(
    ("generator", "label", "match"),
    [
        (exact(), [0, 3], "class 3 is asked for(.|\n)*0 to 2"),
        (exact(), [-2, 0], "class -2"),
        (exact(), [0], "1 labels are given for 2 samples"),
        (exact(unlabelled=False), [-1, 0], "class -1(.|\n)*label_dropping"),
        (exact(2.0, unlabelled=False), [0, 1], "always was told the class(.|\n)*label_dropping"),
        ("unconditional", [0, 1], "trained without classes"),
        ("guided", None, "guidance 2 (.|\n)*without classes"),
    ],
)
def test_what_a_model_has_not_learned_is_refused(generator, label, match):
    if isinstance(generator, str):
        name, generator = generator, UNCONDITIONAL.generator(UNCONDITIONAL.objective(POINTS, {}, 0))
        generator.sampling = Sampling(guidance=2.0 if name == "guided" else 1.0)
    with pytest.raises(ConfigurationError, match=match):
        generator.sample(range(2), "euler", 2, None if label is None else torch.tensor(label))


def test_a_density_refuses_classes():
    method = METHODS.build("equivariant")
    with pytest.raises(ConfigurationError, match="without classes"):
        method.generator(method.objective(POINTS, {}, 0)).sample(range(2), "direct", 1, torch.tensor([0, 1]))


TAKE_CLASSES = {
    "unet": {"channels": 4, "multipliers": [1], "blocks": 1, "attention": []},
    "ddpmpp": {"channels": 4, "multipliers": [1], "blocks": 1, "attention": []},
    "ncsnpp": {"channels": 4, "multipliers": [1], "blocks": 1, "attention": []},
    "mlp": {"width": 8, "depth": 1},
}


def test_every_network_that_takes_classes_is_here():
    assert {*TAKE_CLASSES, "small"} == set(networks.names())


@pytest.mark.parametrize("kind", TAKE_CLASSES)
def test_a_network_without_its_class_does_not_depend_on_what_it_knows_of_classes(kind):
    shape = (1, 4, 4) if NETWORKS.get(kind).sample_dims == 3 else (2,)
    network, generator = networks.build({"kind": kind, **TAKE_CLASSES[kind]}, shape, 3), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    x, c, label = torch.randn(4, *shape, generator=generator), torch.zeros(4), torch.tensor([-1, 0, 1, 2])
    before = network(x, c, label)
    with torch.no_grad():
        network.conditioning.label.weight.mul_(2)
    after = network(x, c, label)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, True, True, True]


@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_labels_are_dropped_as_often_as_they_should(probability):
    label = torch.arange(400) % 3
    batch = Batch(torch.zeros(400, 2), label, 0, BatchDraws(0, "test", batch=400), None)
    _, found, _ = Changes(label_dropping=probability)(batch)
    dropped = found == UNLABELLED
    assert float(dropped.float().mean()) == pytest.approx(probability, abs=1 / 400)
    assert torch.equal(found[~dropped], label[~dropped])
    assert Changes(label_dropping=probability)(batch._replace(label=None))[1] is None


def test_a_model_that_learned_with_dropped_labels_is_guided():
    """Clusters of points: classes as asked, all of them without one, and further from the others under guidance."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(600) % 3
    x = (MEANS[label] + SD * torch.randn(600, 2, generator=generator)).float()
    network = {"kind": "mlp", "width": 32, "depth": 2, "features": 2}
    facts = Facts(name="points", shape=(2,), classes=3, sigma_data=float(x.std()), box=(-9.0, 9.0), network=network)
    options = {
        "flow": {"name": "oscillation"},
        "parameterisation": "velocity",
        "times": {"law": "log_normal", "mean": -1.2, "std": 1.2},
    }
    method = METHODS.build("velocity", **options, label_dropping=0.2)
    plan = Training(train_kimg=60, batch=200, learning_rate=5e-3, ema_halflife_kimg=4)
    model = method.generator(fitted(method.objective(facts, {}, 0), Samples(x, label), plan, 0))
    asked = torch.arange(150) % 3
    how = {"sigma_min": 0.02, "sigma_max": 20.0}
    model.sampling = Sampling(**how)
    samples, _ = model.sample(range(150), "heun", 17, asked)
    assert float((nearest(samples) == asked).float().mean()) > 0.98
    every, _ = model.sample(range(150), "heun", 17, torch.full((150,), UNLABELLED))
    assert bool((nearest(every).bincount(minlength=3) > 25).all())
    model.sampling = Sampling(**how, guidance=3.0)
    guided, _ = model.sample(range(150), "heun", 34, asked)
    outward = MEANS[asked] / MEANS[asked].norm(dim=1, keepdim=True)
    assert float(((guided - samples) * outward).sum(1).mean()) > 0


GUIDED = ["datasets.digits.conditional=true", "run.datasets=[digits]", "run.methods=[edm]", "methods.edm.guidance=2"]
DROPPED = [*GUIDED, "methods.edm.label_dropping=0.1"]


def test_guidance_is_checked_before_any_job():
    budgets = ["methods.edm.samplers={heun: [10, 34]}"]
    loaded = config.load(["params.yaml"], [*DROPPED, *budgets])
    spec = config.sampling_spec(loaded, "digits", "edm")
    assert (spec["guidance"], spec["settings"]) == (2.0, [["heun", 10], ["heun", 34]])
    assert "guidance" not in config.training_spec(loaded, "digits", "edm")["options"]
    assert "guidance" not in config.sampling_spec(config.load(["params.yaml"]), "digits", "edm")
    with pytest.raises(ConfigurationError, match="always be told the class"):
        config.load(["params.yaml"], [*GUIDED, *budgets])
    with pytest.raises(ConfigurationError, match="conditional` is false"):
        config.load(["params.yaml"], [*DROPPED[1:], *budgets])
    with pytest.raises(ConfigurationError, match="under guidance(.|\n)*methods.edm.samplers"):
        config.load(["params.yaml"], DROPPED)
    with pytest.raises(ConfigurationError, match="under guidance"):
        config.load(["params.yaml"], [*DROPPED, "methods.edm.samplers={heun: [35]}"])


def test_augmentation_needs_a_network_that_is_told():
    given = ["run.datasets=[digits]", "run.methods=[edm]"]
    with pytest.raises(ConfigurationError, match="augmentation` = 0.12(.|\n)*leak"):
        config.load(["params.yaml"], [*given, "methods.edm.augmentation=0.12"])
    with pytest.raises(ConfigurationError, match="mirror(.|\n)*points"):
        config.load(["params.yaml"], ["run.datasets=[rings]", "run.methods=[edm]", "methods.edm.mirror=true"])
    network = "networks.told={kind: ddpmpp, channels: 8, multipliers: [1, 2], blocks: 1, attention: [4], augmentation: true}"
    told = [*given, network, "datasets.digits.network=told", "methods.edm.augmentation=0.12", "methods.edm.mirror=true"]
    assert config.training_spec(config.load(["params.yaml"], told), "digits", "edm")["options"]["augmentation"] == 0.12
    with pytest.raises(ConfigurationError, match="methods.edm.augmentation"):
        config.load(["params.yaml"], [*told, "methods.edm.augmentation=1.5"])
