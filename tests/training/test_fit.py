"""The one loop: whose weights move, when, by what, and that nothing depends on microbatches, breaks or ranks."""

import multiprocessing

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import distributed, nn

from hamflow import networks
from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.files import load_tensors, save_tensors
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Objective, Samples, Turn, fit, fitted, learning_rate_factor
from hamflow.training.plan import Player, Training
from hamflow.training.state import State

FACTS = Facts(
    name="plane", shape=(2,), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network={"kind": "small", "width": 16, "depth": 2}
)
VELOCITY = {"flow": {"name": "oscillation"}, "parameterisation": "velocity", "times": {"law": "uniform"}}
METHOD = {
    "velocity": VELOCITY,
    "hsm": {"critic_steps": 2},
    "solver": {"nfe": 3, "pairs": 16, "precise": 2},
    "consistency": {"stage_kimg": 0.1},
}
PARENTS = {"solver": {"velocity": "velocity"}, "consistency": {"velocity": "velocity"}}  # {kind: {role: kind}}
PLAN = Training(train_kimg=0.32, batch=32, report_kimg=0.096, ema_halflife_kimg=0.1, learning_rate=1e-2)
DATA = torch.from_numpy(np.random.default_rng(0).standard_normal((100, 2))).float()


class Game(Objective):
    """Two weights: `down` lowers a loss, `up` is told how often it was called."""

    turns = (Turn("rare", "up", every=3), Turn("often", "down", repeats=2))

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.register_buffer("moved", torch.zeros(()))
        self.seen = []

    def losses(self, turn, batch):
        self.seen.append((turn, batch.step, batch.x.flatten().tolist(), batch.draw.normal("n", (1,)).flatten().tolist()))
        return (self.up(batch.x) * self.down(batch.x)).flatten() + 3.0

    def after(self, turn, batch):
        self.moved += 1
        return {"calls": self.moved.clone()}


def game(**plan):
    objective = Game()
    with torch.no_grad():
        objective.up.weight.fill_(0.5)
        objective.down.weight.fill_(0.25)
    plan = Training(**{"train_kimg": 0.012, "batch": 2, "decay": "none", "report_kimg": 0.012} | plan)
    return objective, plan, State(objective, plan)


ROWS = Samples(torch.arange(1.0, 8.0)[:, None])


def test_turns_come_as_often_as_they_say():
    objective, plan, state = game()
    list(fit(objective, ROWS, plan, 0, state))
    expected = [(turn, step) for step in range(6) for turn in (["rare"] if step % 3 == 0 else []) + ["often", "often"]]
    assert [seen[:2] for seen in objective.seen] == expected
    assert state.record["calls"] == np.mean(np.arange(1, len(expected) + 1))
    assert float(state.averaged.moved) == len(expected)


def test_a_turn_moves_the_weights_of_its_player_alone():
    objective, plan, state = game(train_kimg=0.006, learning_rate=0.125, gradient_clip=0.0)
    before = (0.5, 0.25)
    steps = fit(objective, ROWS, plan, 0, state)
    next(steps)  # one step of Adam of size 1/8 for `up`, two for `down`: all gradients are positive
    up, down = float(objective.up.weight.detach()), float(objective.down.weight.detach())
    assert up == pytest.approx(before[0] - 0.125, abs=1e-6)
    assert before[1] - 0.25 - 1e-6 < down < before[1] - 0.125 - 0.1
    next(steps)
    assert float(objective.up.weight.detach()) == up
    assert float(objective.down.weight.detach()) < down


def test_a_player_may_have_a_learning_rate_of_its_own_and_no_other_may():
    objective, plan, state = game(train_kimg=0.002, players={"up": Player(learning_rate=0.5)})
    next(fit(objective, ROWS, plan, 0, state))
    assert float(objective.up.weight.detach()) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ConfigurationError, match="(?s)'upp'.*up, down"):
        game(players={"upp": Player(learning_rate=0.5)})


def test_each_turn_goes_through_the_data_and_each_update_has_draws_of_its_own():
    objective, plan, state = game(train_kimg=0.014)
    list(fit(objective, ROWS, plan, 0, state))
    for turn in ("rare", "often"):
        rows = [x for name, _, batch, _ in objective.seen if name == turn for x in batch]
        whole = len(rows) // 7 * 7
        assert all(sorted(rows[i : i + 7]) == list(range(1, 8)) for i in range(0, whole, 7))
    draws = [tuple(noise) for *_, noise in objective.seen]
    assert len(set(draws)) == len(draws)


def test_the_report_is_the_mean_since_the_last():
    objective, plan, state = game(learning_rate=1e-12, report_kimg=0.004)
    records = [state.record for state in fit(objective, ROWS, plan, 0, state) if state.record]
    assert [record["kimg"] for record in records] == [0.004, 0.008, 0.012]
    losses = [np.mean([0.125 * x * x + 3 for x in batch]) for name, _, batch, _ in objective.seen if name == "often"]
    assert [record["loss"] for record in records] == pytest.approx([np.mean(losses[i : i + 4]) for i in (0, 4, 8)], rel=1e-6)
    assert state.history == records


def test_learning_rates_ramp_up_and_fall_as_a_cosine():
    plan = Training(train_kimg=1, batch=10, warmup_kimg=0.2)
    factors = [learning_rate_factor(plan, step) for step in range(100)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20:] == pytest.approx([0.5 * (1 + np.cos(np.pi * (step - 20) / 80)) for step in range(20, 100)])
    flat = replace(plan, decay="none")
    assert [learning_rate_factor(flat, step) for step in (20, 99)] == [1, 1]


def objective_of(kind):
    parents = {}
    for role, parent in PARENTS.get(kind, {}).items():
        parents[role] = METHODS.build(parent, **METHOD[parent]).generator(objective_of(parent))
    return METHODS.build(kind, **METHOD[kind]).objective(FACTS, parents, 0)


@pytest.mark.parametrize("kind", METHOD)
def test_a_break_at_any_step_changes_no_bit(kind, tmp_path):
    whole_state = State(objective := objective_of(kind), PLAN)
    list(fit(objective, Samples(DATA), PLAN, 5, whole_state))
    rng, state = np.random.default_rng(1), State(objective_of(kind), PLAN)
    while state.step < PLAN.steps:
        steps = fit(state.objective, Samples(DATA), PLAN, 5, state)
        for _ in range(rng.integers(1, 4)):
            next(steps, None)
        save_tensors(tmp_path / "state", state.tensors(), {"progress": state.progress()})
        tensors, metadata = load_tensors(tmp_path / "state")
        state = State(objective_of(kind), PLAN)
        state.restore(tensors, metadata["progress"])
    assert state.progress() == whole_state.progress()
    expected = whole_state.tensors()
    assert state.tensors().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.tensors().items())


@pytest.mark.parametrize("kind", METHOD)
def test_microbatches_change_nothing_but_rounding(kind):
    whole = fitted(objective_of(kind), Samples(DATA), PLAN, 0).state_dict()
    parts = fitted(objective_of(kind), Samples(DATA), replace(PLAN, microbatch=7), 0).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)


def train_as(rank, world, kind, folder):
    """One of `world` processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world)
    averaged = fitted(objective_of(kind), Samples(DATA), replace(PLAN, microbatch=5), 0)
    save_tensors(folder / f"{rank}", averaged.state_dict(), {})
    distributed.destroy_process_group()


@pytest.mark.parametrize("kind", METHOD)
def test_two_processes_are_as_one(kind, tmp_path):
    """Also where one has an odd row more, and where a microbatch is not full."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=train_as, args=(rank, 2, kind, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    one = fitted(objective_of(kind), Samples(DATA), PLAN, 0).state_dict()
    first, second = (load_tensors(tmp_path / f"{rank}")[0] for rank in range(2))
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-6)


class Faulty(Objective):
    """Its loss is no number at step 2."""

    turns = (Turn("one", "network"),)

    def __init__(self):
        super().__init__()
        self.network = networks.build(FACTS.network, (2,))

    def losses(self, turn, batch):
        return self.network(batch.x, batch.x.new_zeros(1)).sum(1) * (float("inf") if batch.step == 2 else 1)


def test_a_loss_that_is_not_finite_stops_the_training_before_its_weights_are_spoilt():
    objective = Faulty()
    state = State(objective, PLAN)
    with pytest.raises(DivergenceError, match=r"'one' of step 2 \(0.064 kimg\)"):
        list(fit(objective, Samples(DATA), PLAN, 0, state))
    assert all(bool(value.isfinite().all()) for value in objective.state_dict().values())
    with pytest.raises(DivergenceError):  # nor is such a state ever saved
        state.tensors()


def test_the_average_is_of_the_whole_objective_and_may_be_none():
    plan = replace(PLAN, ema_halflife_kimg=0.0)
    objective = objective_of("hsm")
    averaged = fitted(objective, Samples(DATA), plan, 0)
    assert all(torch.equal(value, averaged.state_dict()[name]) for name, value in objective.state_dict().items())
    objective = objective_of("hsm")
    averaged = fitted(objective, Samples(DATA), PLAN, 0)
    for player in ("force", "critic"):
        weights = objective.get_submodule(player).state_dict()
        assert not any(torch.equal(value, averaged.get_submodule(player).state_dict()[name]) for name, value in weights.items())
    assert not any(weight.requires_grad for weight in averaged.parameters())
