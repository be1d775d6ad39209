"""The kind `solver`: it ends where precise solutions of its parent's field end, and says what cannot be."""

import json

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from hamflow import cli, config, flows, load
from hamflow.draws import BatchDraws, SampleDraws
from hamflow.errors import CheckpointError, ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.base import METHODS, Facts, Generator
from hamflow.methods.velocity import FlowGenerator
from hamflow.sampling.gits import gits_grid
from hamflow.sampling.learned import _adams, angle_grid, hand_made_grids, precise_ends, run
from hamflow.sampling.solvers import solve
from hamflow.training.energy import EnergyDistance
from hamflow.training.fit import Batch, Samples, fitted
from hamflow.training.plan import Training
from hamflow.verbs._training import train

FACTS = Facts(
    name="plane", shape=(2,), classes=0, sigma_data=1.0, box=(-3.0, 3.0), network={"kind": "mlp", "width": 16, "depth": 1}
)
PLAN = Training(train_kimg=6.4, batch=32, learning_rate=5e-3, betas=(0.9, 0.999), ema_halflife_kimg=0.0)
FLOWS = {
    "flow_matching": {},
    "oscillation": {"alpha": 1.0},
    "diffusion": {"horizon": 20.0},
}


LAW = GaussianMixture([0.3, 0.3, 0.4], [[-1.0, 0.2], [0.8, 0.9], [0.5, -1.0]], [0.25, 0.3, 0.2])


class ExactField(nn.Module):
    """The exact V of a mixture of normal laws; of a conditional one each class has a mixture of its own, shifted."""

    shape = (2,)

    def __init__(self, flow, classes=0):
        super().__init__()
        self.flow, self.classes, self.velocity = flow, classes, LAW.velocity_under(flow)
        self.shift = nn.Parameter(torch.tensor(0.5, dtype=torch.float64), requires_grad=False)

    def forward(self, x, t, label=None):
        found = self.velocity(x, t)
        return found if label is None else found + self.shift * label[:, None]


def parent_of(name, classes=0, **options):
    return FlowGenerator(ExactField(flows.build(name, **options), classes))


def solver_of(parent, plan=PLAN, classes=0, data=None, **options):
    method = METHODS.build("solver", **{"nfe": 4, "pairs": 64, "precise": 10} | options)
    objective = method.objective(replace(FACTS, classes=classes), {"velocity": parent}, 0)
    return method.generator(fitted(objective, data or Samples(torch.zeros(40, 2)), plan, 0))


@pytest.mark.parametrize("name", FLOWS)
def test_for_any_flow_it_ends_nearer_to_precise_samples_than_its_start_and_multistep_do(name):
    parent = parent_of(name, **FLOWS[name])
    before, after = (solver_of(parent, plan) for plan in (replace(PLAN, train_kimg=0.032, learning_rate=1e-12), PLAN))
    flow, seeds, velocity = parent.flow, range(200), parent.velocity
    starts = flow.terminal(flow.noise(SampleDraws(seeds), (2,)))
    ends = precise_ends(velocity, flow, starts)
    errors = []
    for generator in (after, before):
        samples, spent = generator.sample(seeds, "bns", 4)
        assert spent == 4
        errors.append(float((samples - ends).square().flatten(1).mean(1).sqrt().mean()))
    with torch.no_grad():
        by_hand = [solve("multistep", velocity, starts, times) for times in hand_made_grids(flow, 4)]
    errors.append(min(float((end - ends).square().mean(1).sqrt().mean()) for end in by_hand))
    assert errors[0] < min(errors[1:])


def test_by_the_law_of_the_data_its_samples_come_nearer_to_them():
    parent, plan = parent_of("oscillation", alpha=1.0), replace(PLAN, train_kimg=12.8, batch=128)
    fresh, judge = (LAW.sample(4000, np.random.default_rng(seed)) for seed in (0, 1)), EnergyDistance((2,))
    data, real = Samples(next(fresh).float()), next(fresh)
    plans = (replace(plan, train_kimg=0.128, learning_rate=1e-12), plan)
    learned = [solver_of(parent, one, data=data, nfe=3, match="law") for one in plans]
    before, after = (float(judge(one.sample(range(4000), "bns", 3)[0], real).mean()) for one in learned)
    assert after < 0.5 * before


def test_by_the_law_a_conditional_field_is_solved_with_the_labels_of_the_data():
    parent = parent_of("oscillation", classes=2, alpha=1.0)
    objective = METHODS.build("solver", nfe=2, match="law").objective(replace(FACTS, classes=2), {"velocity": parent}, 0)
    objective.begin(None)
    data, labels, draw = torch.zeros(8, 2), torch.arange(8) % 2, BatchDraws(0, "test", batch=8)
    starts = parent.flow.terminal(draw.normal("noise", (2,))).double()
    solved = run(lambda x, t: parent.velocity(x, t, labels), starts, *objective.solver())
    loss = objective.losses("solver", Batch(data + starts.float(), labels, 0, draw, objective))
    torch.testing.assert_close(loss, EnergyDistance((2,))(solved, data + starts.float()))


@pytest.mark.parametrize("classes", [0, 2])
def test_the_times_may_start_from_those_of_dynamic_programming(classes):
    parent = parent_of("oscillation", classes, alpha=1.0)
    method = METHODS.build("solver", nfe=4, pairs=64, precise=10, start="gits")
    objective = method.objective(replace(FACTS, classes=classes), {"velocity": parent}, 0)
    objective.begin(None)
    starts, _, labels = objective.pairs
    expected = gits_grid(lambda x, t: parent.velocity(x, t, labels), parent.flow, starts, 4)
    assert torch.equal(objective.solver.start, expected)
    assert not torch.allclose(expected, angle_grid(parent.flow, 4, FACTS.sigma_data))


def test_times_alone_leave_the_coefficients_adams_bashforths():
    few = replace(PLAN, train_kimg=0.32)
    alone, both = (solver_of(parent_of("oscillation"), few, times_only=only).fields.solver for only in (True, False))
    torch.testing.assert_close(alone.weights, _adams(alone.times))
    assert not torch.equal(alone.times, angle_grid(parent_of("oscillation").flow, 4, 1.0))
    assert float((both.weights - _adams(both.times)).abs().max()) > 1e-2


def test_the_field_stays_as_it_is_and_its_score_is_not_offered_twice():
    parent = parent_of("flow_matching")
    before = {name: tensor.clone() for name, tensor in parent.module.state_dict().items()}
    generator = solver_of(parent, replace(PLAN, train_kimg=0.32))
    after = generator.module.field.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before | after)
    assert isinstance(generator, Generator)
    assert not hasattr(generator, "score")


def test_each_class_of_a_conditional_field_is_solved_with_its_label():
    parent = parent_of("flow_matching", classes=3)
    objective = METHODS.build("solver", pairs=9, precise=3).objective(replace(FACTS, classes=3), {"velocity": parent}, 0)
    starts, ends, labels = objective.pairs
    assert labels.tolist() == [0, 1, 2] * 3
    for label in range(3):
        one = labels == label
        velocity = lambda x, t, label=label: parent.velocity(x, t, torch.full((len(x),), label))  # noqa: E731
        torch.testing.assert_close(ends[one], precise_ends(velocity, parent.flow, starts[one], 3))


@pytest.fixture(scope="module")
def checkpoints(prepared, tiny_config, tmp_path_factory):
    """(flow matching, its solver) of the checkerboard, by the work of the verb `train`."""
    folder = tmp_path_factory.mktemp("solver")
    data = prepared / "checkerboard"
    parent = train(config.training_spec(tiny_config, "checkerboard", "flow_matching"), data, 0, folder / "fm", "cpu")
    return parent, train(spec_of(tiny_config), data, 0, folder / "bns", "cpu", parents={"velocity": parent})


def spec_of(parameters):
    spec = config.training_spec(parameters, "checkerboard", "fm_bns")
    return spec | {"options": {"nfe": 3, "pairs": 32, "precise": 4}, "training": spec["training"] | {"train_kimg": 0.64}}


def test_its_checkpoint_loads_alone_and_samples_to_the_same_bits(checkpoints):
    parent, path = checkpoints
    first, again = (load(path).sample(range(5), "bns", 3)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(load(path).sample(range(5), "heun", 5)[0], load(parent).sample(range(5), "heun", 5)[0])
    with pytest.raises(ConfigurationError, match="spends 3 evaluations; got nfe = 8"):
        load(path).sample(range(5), "bns", 8)
    with pytest.raises(ConfigurationError, match="has none"):
        load(parent).sample(range(5), "bns", 3)


@pytest.mark.parametrize("kind", ["fm_bns", "consistency"])
def test_a_child_loads_though_its_parent_kept_more_of_the_data_for_its_training(kind, prepared, tiny_config, tmp_path):
    """The covariance of a loss metric, 64 x 64, beside which the child's own numbers are few."""
    data, short = prepared / "digits", {"train_kimg": 0.064, "batch": 32, "microbatch": 32}

    def trained(method, **options):
        spec = config.training_spec(tiny_config, "digits", method)
        spec |= {"options": spec["options"] | options, "training": spec["training"] | short}
        given = {"velocity": tmp_path / "coloured" / "model.safetensors"} if "parents" in spec else {}
        spec |= {"parents": {"velocity": "oscillation_coloured"}} if given else {}
        return train(spec, data, 0, tmp_path / ("child" if given else "coloured"), "cpu", parents=given)

    trained("oscillation_coloured")
    child = load(trained(kind, **({"match": "law", "nfe": 2} if kind == "fm_bns" else {})))
    samples, _ = child.sample(range(3), *(("bns", 2) if kind == "fm_bns" else ("consistency", 1)))
    assert samples.shape == (3, 1, 8, 8)
    assert samples.isfinite().all()


def test_a_parent_of_another_method_or_kind_is_refused(checkpoints, prepared, tiny_config, tmp_path, capsys):
    parent, path = checkpoints
    data = prepared / "checkerboard"
    for wrong, error, told in [
        ({"velocity": "edm"}, CheckpointError, "trained with method 'flow_matching'"),
        ({"other": "flow_matching"}, ConfigurationError, "no parent of this method has one"),
    ]:
        (role,) = wrong
        with pytest.raises(error, match=told):
            train(spec_of(tiny_config) | {"parents": wrong}, data, 0, tmp_path, "cpu", parents={role: parent})
    words = ["train", "--spec", json.dumps(spec_of(tiny_config) | {"parents": {"velocity": "fm_bns"}}), "--data", str(data)]
    assert cli.main([*words, "--output", str(tmp_path), "--parent", f"velocity={path}", "--device", "cpu"]) == 2
    assert "no parent of this method has one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("methods.fm_bns.parents={velocity: equivariant}", "of kind 'equivariant', not 'velocity'"),
        ("methods.fm_bns.parents=null", "`methods.fm_bns.parents` names no `velocity`"),
        ("methods.fm_bns.samplers={bns: [5]}", "`nfe: 8`.*samplers: {bns: \\[8\\]}"),
        ("methods.fm_bns.samplers=null", "`nfe: 8`"),
        ("methods.fm_bns.nfe=0", "nfe"),
        ("methods.fm_bns.samplers={bns: [8], heun: [4]}", "use 3 or 5"),
    ],
)
def test_what_cannot_be_is_refused_while_the_parameters_are_read(setting, told):
    with pytest.raises(ConfigurationError, match=f"(?s){told}"):
        config.load(["params.yaml"], [setting])
