"""Times that are drawn where the loss is spread widest: the density, its weights, and what it learns."""

import pytest
import torch
from msgspec.structs import replace

from hamflow.draws import BatchDraws
from hamflow.flows.learned_times import FLOOR, MEMORY, LearnedTimes
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Batch, Samples, fit
from hamflow.training.plan import Training
from hamflow.training.state import State

K = 8
FACTS = Facts(
    name="line", shape=(1,), classes=0, sigma_data=1.0, box=(-3.0, 3.0), network={"kind": "mlp", "width": 16, "depth": 1}
)
ENTRY = {
    "flow": {"name": "oscillation", "alpha": 1.0},
    "parameterisation": "velocity",
    "times": {"law": "log_normal", "mean": -1.2, "std": 1.2},
}


def taught(spread):
    """Learned times that saw losses of each stratum with that root mean square."""
    learned = LearnedTimes(len(spread))
    u = (torch.arange(len(spread)) + 0.5) / len(spread)
    learned.note(u.double(), torch.tensor(spread).square())
    learned.fold(len(spread))
    return learned


def test_before_anything_was_seen_times_are_as_the_law_says():
    u = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    drawn, weight = LearnedTimes(K).draw(u)
    torch.testing.assert_close(drawn, u)
    torch.testing.assert_close(weight, torch.ones_like(u))


def test_the_density_is_in_proportion_to_the_spread_above_its_floor():
    spread = torch.linspace(0, 3, K)
    density = taught(spread.tolist()).density()
    torch.testing.assert_close(density, ((1 - FLOOR) * spread / spread.mean() + FLOOR).double(), rtol=1e-6, atol=1e-6)
    assert float(density.mean()) == pytest.approx(1)


def test_weights_leave_every_mean_what_it_is():
    """The mean of weight(u') h(u') over a fine grid of u is that of h: a power, and the share of each stratum."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    drawn, weight = taught([0.1, 2.0, 0.5, 0.0, 1.0, 3.0, 0.2, 0.4]).draw(u)
    assert float((weight * drawn**3).mean()) == pytest.approx(1 / 4, rel=1e-4)
    shares = torch.zeros(K, dtype=torch.float64).index_add_(0, (drawn * K).long(), weight) / len(u)
    torch.testing.assert_close(shares, torch.full((K,), 1 / K, dtype=torch.float64), rtol=1e-3, atol=0)
    assert bool((drawn.diff() > 0).all())


def test_the_density_of_least_variance_is_in_proportion_to_the_spread():
    """E w^2 g^2 under the learned density is near (E |g|)^2, its least; under the law it is E g^2."""
    spread = torch.tensor([0.1, 2.0, 0.5, 0.05, 1.0, 3.0, 0.2, 0.4], dtype=torch.float64)
    density = taught(spread.tolist()).density()
    learned, plain, least = (spread**2 / density).mean(), (spread**2).mean(), spread.mean() ** 2
    assert float(least) <= float(learned) < 0.5 * float(plain)
    assert float(learned) == pytest.approx(float(least), rel=FLOOR)


def test_older_losses_fade():
    learned = taught([1.0] * K)
    for _ in range(10):
        learned.fold(K)
    torch.testing.assert_close(learned.seen, torch.full((2, K), (1 - MEMORY) * MEMORY**10 / K))
    assert not learned.new.any()


def test_a_stratum_that_was_not_seen_has_the_mean_of_the_others():
    learned = LearnedTimes(2)
    learned.note(torch.tensor([0.25], dtype=torch.float64), torch.tensor([4.0]))
    learned.fold(1)
    torch.testing.assert_close(learned.density(), torch.ones(2, dtype=torch.float64))


def objective_of(strata):
    return METHODS.build("velocity", **ENTRY, strata=strata).objective(FACTS, {}, 0)


def trained(plan, strata=16):
    rows = Samples(torch.randn(200, 1, generator=torch.Generator().manual_seed(0)))
    objective = objective_of(strata)
    state = State(objective, plan)
    for _ in fit(objective, rows, plan, 0, state):
        pass
    return objective


PLAN = Training(train_kimg=3.2, batch=64, learning_rate=1e-3)


def test_microbatches_learn_the_same_times():
    whole, parts = trained(PLAN), trained(replace(PLAN, microbatch=16))
    torch.testing.assert_close(whole.learned_times.density(), parts.learned_times.density(), rtol=1e-4, atol=1e-5)


def test_a_training_learns_the_loss_of_each_stratum():
    """At small times v_t is noise that x_t does not tell, E|v - V|^2 near 1; at the horizon v_t is the datum: for N(0, 1)
    data V = 0, and every stratum has the same loss."""
    density = trained(PLAN).learned_times.density()
    assert float((density - 1).abs().max()) < 0.2
    wide = objective_of(16)
    batch = Batch(3 * torch.ones(64, 1), None, 0, BatchDraws(0, "test", batch=64), wide)
    wide.losses("velocity", batch)
    wide.after("velocity", batch)
    assert float(wide.learned_times.density().max()) > 1.1


def test_without_strata_nothing_is_learned():
    assert objective_of(0).learned_times is None
