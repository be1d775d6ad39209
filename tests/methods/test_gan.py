"""The kind `gan`: its penalty, the probability that adapts, its row by the one loop, exact resuming, and what it lacks."""

import copy
import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from hamflow import cli, config
from hamflow.draws import BatchDraws
from hamflow.errors import ConfigurationError, DivergenceError, NotOffered
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import METHODS, Facts, Generator, load
from hamflow.score.model import metrics_of
from hamflow.training.fit import Batch, Samples, fit, fitted
from hamflow.training.plan import Training
from hamflow.training.state import State
from hamflow.verbs._training import train
from hamflow.verbs.sample import sample

SMALL = {"base": 64, "widest": 16, "latent": 8, "label_mapping": 2, "group": 4, "width": 16}
FACTS = Facts(name="squares", shape=(1, 8, 8), classes=0, sigma_data=0.5, box=(-1.0, 1.0), network={})
PLANE = replace(FACTS, shape=(2,))
PLAN = Training(train_kimg=0.096, batch=16, learning_rate=2e-3, betas=(0.0, 0.99), decay="none", gradient_clip=0.0)
CASES = {
    "images": ({"penalty_every": 3}, FACTS),
    "classes": ({"ada_kimg": 0.2, "ada_every": 2}, replace(FACTS, classes=3)),
    "relativistic": ({"loss": "relativistic", "penalty_every": 1, "p": 0.3}, FACTS),
    "points": ({"penalty_every": 2}, PLANE),
}


def rows_of(facts, n=60):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-1, 1, (n, *facts.shape))).float()
    return Samples(x, torch.from_numpy(rng.integers(0, facts.classes, n)) if facts.classes else None)


def build(options, facts=FACTS, seed=0):
    method = METHODS.build("gan", **SMALL | options)
    return method, method.objective(facts, {}, seed)


def every_case(test):
    return pytest.mark.parametrize(("options", "facts"), CASES.values(), ids=CASES)(test)


def batch_of(facts, n=6, turn="penalty", dtype=torch.float32):
    rows = rows_of(facts, n)
    return Batch(rows.x.to(dtype), rows.label, 0, BatchDraws(0, "training", turn, 0, 0, batch=n), None)


@every_case
def test_a_broken_training_goes_on_to_the_same_bits(options, facts):
    """With microbatches, a penalty that is due in some steps only, and a probability under way."""
    plan, rows = replace(PLAN, microbatch=8), rows_of(facts)
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


@every_case
def test_the_generator_makes_each_sample_from_its_seed(options, facts):
    method, objective = build(options, facts)
    generator = method.generator(fitted(objective, rows_of(facts), PLAN, 0))
    assert isinstance(generator, Generator)
    samples, nfe = generator.sample(range(7), "direct", 1)
    assert (samples.shape, samples.dtype, nfe) == ((7, *facts.shape), torch.float64, 1)
    generator.sampling = replace(generator.sampling, batch=2)
    torch.testing.assert_close(generator.sample(range(7), "direct", 1)[0], samples, rtol=0, atol=1e-5)
    label = torch.tensor([5 % facts.classes]) if facts.classes else None
    torch.testing.assert_close(generator.sample(range(5, 6), "direct", 1, label)[0], samples[5:6], rtol=0, atol=1e-5)
    assert generator.sample(range(0), "direct", 1)[0].shape == (0, *facts.shape)


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_the_penalty_and_its_gradient_are_those_of_differences(loss):
    """gamma/2 |dD/dx|^2, through the augmentation, and its slope along a direction of D's weights; float64."""
    _, objective = build({"loss": loss, "penalty": 0.3, "penalty_every": 4, "p": 0.7, "group": 1})
    objective, batch, step = objective.double(), batch_of(FACTS, dtype=torch.float64), 1e-5
    images = {"real": batch.x}
    if loss == "relativistic":
        images["fake"] = objective_samples(objective, batch)
    expected = torch.zeros(len(batch.x), dtype=torch.float64)
    with torch.no_grad():
        for name, x in images.items():
            for pixel in range(64):
                shifted = torch.zeros(64, dtype=torch.float64).index_fill(0, torch.tensor(pixel), step).view(1, 8, 8)
                ahead, behind = (objective.judge(x + s * shifted, None, batch.draw, name) for s in (1, -1))
                expected += ((ahead - behind) / (2 * step)) ** 2
    found = objective.penalty(batch, None)
    torch.testing.assert_close(found, 4 * 0.3 / 2 * expected, rtol=1e-5, atol=1e-8)

    weights = list(objective.discriminator.parameters())
    directions = [torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(1)) for w in weights]
    gradients = torch.autograd.grad(found.sum(), weights, allow_unused=True, materialize_grads=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(objective)
        with torch.no_grad():
            for weight, direction in zip(moved.discriminator.parameters(), directions, strict=True):
                weight += sign * 1e-6 * direction
        values.append(moved.penalty(batch, None).sum().detach())
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-6, rtol=1e-4, atol=1e-6)


def objective_samples(objective, batch):
    from hamflow.methods.gan import generated

    with torch.no_grad():
        return generated(objective.generator, batch.draw, None)


def test_the_losses_are_the_published_ones():
    """With the logits of both players taken from the objective's own D."""
    for loss in ("logistic", "relativistic"):
        _, objective = build({"loss": loss, "penalty": 0.0, "p": 0.5})
        for turn in ("discriminator", "generator"):
            batch = batch_of(FACTS, turn=turn)
            with torch.no_grad():
                d = {
                    name: objective.judge(x, None, batch.draw, name).double()
                    for name, x in (("real", batch.x), ("fake", objective_samples(objective, batch)))
                }
                found = objective.losses(turn, batch).double()
            if loss == "relativistic":
                gap = d["real"] - d["fake"] if turn == "generator" else d["fake"] - d["real"]
                expected = (1 + gap.exp()).log()
            elif turn == "generator":
                expected = -d["fake"].sigmoid().log()
            else:
                expected = -(1 - d["fake"].sigmoid()).log() - d["real"].sigmoid().log()
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Verdict(torch.nn.Module):
    """A discriminator that always says the same."""

    def __init__(self, logit):
        super().__init__()
        self.logit, self.unused = logit, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, label=None):
        return self.logit + 0 * self.unused + 0 * x.flatten(1).sum(1)


def test_the_probability_follows_the_signs_up_and_down():
    """Every `ada_every` steps by their images / ada_kimg, to the side of the target; never below zero, above one it may go."""
    _, objective = build({"penalty": 0.0, "ada_every": 2, "ada_kimg": 0.16, "target": 0.6})
    step = 2 * PLAN.batch / 160
    plan, rows = replace(PLAN, train_kimg=1.0, microbatch=6, report_kimg=PLAN.batch / 1000), rows_of(FACTS)
    objective.discriminator = Verdict(2.0)
    expected, logits = 0.0, [2.0] * 12 + [0.1] * 4 + [-1.0] * 20 + [3.0] * 2
    for state in fit(objective, rows, plan, 0):
        assert state.record["sign"] == (1.0 if objective.discriminator.logit > 0 else -1.0)
        if state.step % 2 == 0:
            expected = max(0.0, expected + step * state.record["sign"])
        assert float(objective.p) == pytest.approx(expected, abs=1e-6)
        assert state.record["p"] == pytest.approx(expected, abs=1e-6)
        if state.step == len(logits):
            break
        objective.discriminator.logit = logits[state.step]
    assert float(objective.p) == pytest.approx(step)  # up to 1.6, down to 0, up once


def test_half_of_the_signs_are_below_the_target():
    _, objective = build({"penalty": 0.0, "ada_every": 1, "ada_kimg": 0.16, "p": "auto"})
    objective.p += 0.5
    for sign, up in ((0.59, False), (0.61, True)):
        before = objective.p.clone()
        objective._signs = [torch.tensor([sign])]
        objective.after("discriminator", batch_of(FACTS))
        objective.after("generator", batch_of(FACTS))
        assert bool(objective.p > before) == up


@pytest.mark.parametrize(("options", "facts", "p"), [({"p": 0.25}, FACTS, 0.25), ({}, PLANE, 0.0)], ids=["fixed", "points"])
def test_a_probability_that_is_given_stays_and_points_are_not_augmented(options, facts, p):
    _, objective = build({"ada_every": 1, "ada_kimg": 0.01} | options, facts)
    *_, state = fit(objective, rows_of(facts), PLAN, 0)
    assert float(state.objective.p) == p


def test_each_turn_moves_its_own_player_and_the_penalty_comes_every_so_many_steps():
    _, objective = build({"penalty_every": 3})
    assert [(t.name, t.player, t.every) for t in objective.turns] == [
        ("penalty", "discriminator", 3),
        ("discriminator", "discriminator", 1),
        ("generator", "generator", 1),
    ]
    plan = replace(PLAN, report_kimg=PLAN.batch / 1000)
    *_, state = fit(objective, rows_of(FACTS), plan, 0)
    due = ["penalty_loss" in record for record in state.history]
    assert due == [True, False, False, True, False, False]
    assert all({"loss", "discriminator_loss", "sign", "p"} <= record.keys() for record in state.history)
    steps = {player: next(iter(found.state.values()))["step"] for player, found in state.optimisers.items()}
    assert steps == {"discriminator": 8, "generator": 6}
    assert [turn.name for turn in build({"penalty_every": 1})[1].turns] == ["discriminator", "generator"]


def test_the_rates_of_the_parameters_are_those_of_lazy_regularisation(tiny_config):
    """Karras et al. 2020, appendix B: rate c and beta_2^c with c = k/(k + 1), k = 16 for D and 4 for G."""
    training = config.training_spec(tiny_config, "digits", "stylegan2_ada")["training"]
    for player, k in (("discriminator", 16), ("generator", 4)):
        c, own = k / (k + 1), training["players"][player]
        assert own["learning_rate"] == pytest.approx(c * training["learning_rate"], rel=1e-6)
        assert own["betas"] == [0.0, pytest.approx(training["betas"][1] ** c, abs=1e-6)]


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_a_mixture_is_learned(loss):
    """The energy distance falls to a fifth."""
    law = GaussianMixture([0.5, 0.3, 0.2], [[1.0, 0.0], [-1.0, 0.8], [-0.5, -1.0]], [0.15, 0.2, 0.2])
    test = law.sample(500, np.random.default_rng(9)).float()

    def distance(generator):
        made = generator.sample(range(500), "direct", 1)[0].float()
        return float(2 * torch.cdist(made, test).mean() - torch.cdist(made, made).mean() - torch.cdist(test, test).mean())

    options = {"loss": loss, "penalty": 0.1, "penalty_every": 1, "width": 64}
    plan = replace(PLAN, train_kimg=16, batch=64, ema_halflife_kimg=2)
    method, objective = build(options, PLANE)
    before = distance(method.generator(copy.deepcopy(objective)))
    rows = Samples(law.sample(4000, np.random.default_rng(0)).float())
    assert distance(method.generator(fitted(objective, rows, plan, 0))) < before / 5


def test_it_trains_and_samples_as_a_row_of_the_table_and_refuses_other_samplers(prepared, tiny_config, tmp_path, capsys):
    """Through the verbs, on images and on points; a score or likelihood is refused, and there is no discrepancy."""
    for dataset, shape in (("digits", (10, 8, 8, 1)), ("checkerboard", (10, 2))):
        spec = config.training_spec(tiny_config, dataset, "stylegan2_ada")
        spec["training"]["train_kimg"] = 0.128
        checkpoint = train(spec, prepared / dataset, 0, tmp_path / dataset, "cpu")
        settings = config.sampling_spec(tiny_config, dataset, "stylegan2_ada") | {"n_samples": 10}
        assert settings["settings"] == [["direct", 1]]
        sample(settings, checkpoint, prepared / dataset, 0, tmp_path / "s", "cpu")
        assert np.load(tmp_path / "s" / "direct-nfe1.npy").shape == shape
        generator = load(checkpoint)
        for ask in (generator.score, generator.velocity):
            with pytest.raises(NotOffered, match="a GAN has no"):
                ask(torch.zeros(1, *generator.shape), 0.1)
        with pytest.raises(NotOffered, match="a GAN has no likelihood"):
            generator.log_density(torch.zeros(1, *generator.shape))
        assert metrics_of({"sigmas": [0.1]}, generator, Zeros(generator), torch.device("cpu")) == {}

    other = json.dumps(settings | {"settings": [["heun", 5]]})
    words = ["sample", "--spec", other, "--data", str(prepared / "checkerboard"), "--checkpoint", str(checkpoint)]
    capsys.readouterr()
    assert cli.main([*words, "--output", str(tmp_path / "other"), "--device", "cpu"]) == 2
    assert "a GAN has the sampler 'direct' with nfe 1, not 'heun' with 5" in capsys.readouterr().err


class Zeros:
    """As much of a data set as a discrepancy asks for."""

    kind, count = "point", 4

    def __init__(self, generator):
        self.shape = generator.shape

    def batch(self, indices):
        return torch.zeros(len(indices), *self.shape), None


def test_images_too_small_for_the_wavelet_are_refused():
    with pytest.raises(ConfigurationError, match=r"(?s)images of 3x5 pixels.*`pipe: none`"):
        build({}, replace(FACTS, shape=(1, 3, 5)))
    assert build({"pipe": "none"}, replace(FACTS, shape=(1, 3, 5)))[1].pipe == "none"


def test_logits_without_bound_end_the_training_with_its_advice():
    _, objective = build({})
    objective.discriminator.out.weight.data.fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"(?s)turn 'penalty' of step 0.*`penalty`"):
        fitted(objective, rows_of(FACTS), PLAN, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "hinge"}, "logistic"),
        ({"pipe": "gbc"}, "bgc"),
        ({"p": 1.5}, "`p`"),
        ({"p": "adaptive"}, "auto"),
        ({"target": 1.0}, "target"),
        ({"penalty": -1.0}, "penalty"),
        ({"latent": 0}, "latent"),
        ({"widht": 3}, "width"),
    ],
)
def test_impossible_options_are_refused_before_any_job(options, words):
    with pytest.raises(ConfigurationError, match=words):
        METHODS.check("gan", options)


def test_a_class_that_it_does_not_know_is_refused():
    method, objective = build({})
    with pytest.raises(ConfigurationError, match="trained without classes"):
        method.generator(objective).sample(range(2), "direct", 1, torch.tensor([0, 1]))
