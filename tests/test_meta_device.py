"""Steps and samples on torch's device "meta", which has shapes but no values.

It refuses `.item()`, `float()`, `bool()` and most mixtures of devices: whatever runs on it never waits for the host on CUDA.
"""

import pytest
import torch

from hamflow import config, networks
from hamflow.config import options_of
from hamflow.flows.base import FLOWS
from hamflow.methods.base import METHODS, Facts, Sampling
from hamflow.metrics import features
from hamflow.networks.base import NETWORKS
from hamflow.sampling import names, nfe_of
from hamflow.sampling.solvers import SOLVERS
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

PARAMETERS = config.load(["params.yaml"])["methods"]
UNET = {"channels": 4, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
SMALLEST = {
    "unet": UNET,
    "ddpmpp": UNET | {"augmentation": True},
    "ncsnpp": UNET | {"augmentation": True},
    "mlp": {"width": 8, "depth": 1},
    "small": {"width": 8, "depth": 1},
}
EDM = options_of(PARAMETERS["edm"])
TOLD = {"augmentation": 0.5, "mirror": True, "label_dropping": 0.2}
PLAN = Training(train_kimg=1, batch=8, report_kimg=1, state_kimg=1)
OTHER_KINDS = [
    ("hsm", {}),
    ("hsm", {"antithetic": False, "time_law": "log_uniform", "weight": "constant", "form": "residual"}),
    *(("score_matching", {"loss": loss}) for loss in ("denoising", "implicit", "hutchinson", "sliced")),
    ("gan", {"latent": 8, "width": 8, "penalty_every": 1}),
    *(("equivariant", {"constraint": constraint, "encoder": "radial"}) for constraint in ("none", "soft", "hard")),
]
VAE = {"channels": 4, "latent": 2, "multipliers": [1]}
OF_IMAGES = {  # with their parent of kind `vae`, where they have one
    "vae": VAE,
    "latent": {"flow": {"name": "oscillation"}, "parameterisation": "velocity", "times": {"law": "uniform"}},
    "lsgm": {},
}
BUILT = sorted({entry["flow"]["name"] for entry in PARAMETERS.values() if entry["kind"] == "velocity"})


def facts_of(kind, classes=0):
    shape = (1, 8, 8) if NETWORKS.get(kind).sample_dims == 3 else (2,)
    network = {"kind": kind, **SMALLEST[kind]}
    return Facts(name="noise", shape=shape, classes=classes, sigma_data=0.7, box=(-1.0, 1.0), network=network)


def rows_of(facts):
    x = torch.randn(32, *facts.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return Samples(x, torch.arange(32) % facts.classes if facts.classes else None)


def train(kind, options, facts, steps=2, parents=None):
    objective = METHODS.build(kind, **options).objective(facts, parents or {}, 0).to("meta")
    state = State(objective, PLAN)
    state.step = 1  # before the first, objectives may look at their data
    for _ in zip(range(steps), fit(objective, rows_of(facts), PLAN, 0, state), strict=False):
        assert state.record is None
    assert state.step == 1 + steps
    assert all(weight.is_meta for weight in state.averaged.parameters())


def generator_of(options, facts):
    """On the CPU, with statistics of the data where the flow has some; then moved."""
    method = METHODS.build("velocity", **options)
    objective = method.objective(facts, {}, 0)
    objective.begin(rows_of(facts))
    generator = method.generator(objective.requires_grad_(False).eval())
    generator.module.to("meta")
    return generator


def draw(generator, sampler, steps, each=1, label=None):
    samples, spent = generator.sample(range(3), sampler, each * nfe_of(sampler, steps), label)
    assert samples.is_meta
    assert (samples.shape, spent) == ((3, *generator.shape), each * nfe_of(sampler, steps))


def test_everything_that_is_registered_is_tried():
    assert set(SMALLEST) == set(networks.names())
    pairs_first = "solver"  # solves its pairs before its first step, where it may look at them
    tuned = "consistency"  # from a field, see below
    assert {"velocity", *(kind for kind, _ in OTHER_KINDS), *OF_IMAGES, pairs_first, tuned} == set(METHODS.names())
    assert set(BUILT) == set(FLOWS.names()) - {"oscillation_student", "vp"}  # of the same classes as pfgm and oscillation


@pytest.mark.parametrize("name", [name for name, entry in PARAMETERS.items() if entry["kind"] == "velocity"])
def test_a_step_of_every_velocity_method(name):
    train("velocity", options_of(PARAMETERS[name]), facts_of("mlp"))


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_step_of_every_network(kind):
    train("velocity", EDM, facts_of(kind), 1)


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp"])
def test_a_step_with_changes_of_images_and_labels(kind):
    train("velocity", EDM | TOLD, facts_of(kind, classes=3), 1)


@pytest.mark.parametrize(("kind", "options"), OTHER_KINDS)
def test_a_step_of_every_other_kind_of_method(kind, options):
    train(kind, options, facts_of("mlp"))


@pytest.mark.parametrize("kind", OF_IMAGES)
def test_a_step_of_every_kind_of_images(kind):
    facts = facts_of("unet")
    method = METHODS.build("vae", **VAE)
    parent = method.generator(method.objective(facts, {}, 0).requires_grad_(False).eval())
    train(kind, OF_IMAGES[kind], facts, parents={} if kind == "vae" else {"vae": parent})


def test_a_step_and_a_batch_of_a_consistency_model():
    facts, method = facts_of("mlp"), METHODS.build("velocity", **EDM)
    parent = method.generator(method.objective(facts, {}, 0))
    train("consistency", {}, facts, parents={"velocity": parent})
    method = METHODS.build("consistency")
    generator = method.generator(method.objective(facts, {"velocity": parent}, 0).to("meta"))
    assert generator.sample(range(3), "consistency", 2)[0].is_meta


@pytest.mark.parametrize("sampler", [name for name in names() if SOLVERS[name].slope])
def test_a_batch_of_every_sampler_of_fixed_steps(sampler):
    """An adaptive one looks at the state to choose its steps."""
    draw(generator_of(EDM, facts_of("mlp")), sampler, 5)


@pytest.mark.parametrize("name", [name for name, entry in PARAMETERS.items() if entry["kind"] == "velocity"])
def test_a_batch_of_every_velocity_method(name):
    draw(generator_of(options_of(PARAMETERS[name]), facts_of("mlp")), "heun", 3)


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_batch_of_every_network(kind):
    draw(generator_of(EDM, facts_of(kind)), "euler", 2)


def test_a_guided_batch():
    generator = generator_of(EDM | TOLD, facts_of("ddpmpp", classes=3))
    generator.sampling = Sampling(guidance=2.0)
    draw(generator, "multistep", 4, 2, torch.tensor([0, 2, 1]))


def test_a_density_gives_samples():
    method, facts = METHODS.build("equivariant"), facts_of("mlp")
    generator = method.generator(method.objective(facts, {}, 0).to("meta"))
    assert generator.sample(range(3), "direct", 1)[0].is_meta


def test_the_feature_network():
    network = features.build("efficientnet_lite0", "meta")
    found = network.forward(torch.zeros(2, 1, 8, 8, dtype=torch.uint8, device="meta"))
    assert found.is_meta
    assert found.shape == (2, network.dimension)
