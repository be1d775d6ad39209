"""The learned weight of the loss: where its minimum lies, and that nothing else moves with it."""

import math

import pytest
import torch
from test_learned_times import ENTRY, FACTS

from hamflow.flows import velocity_loss
from hamflow.flows.times import draw_times
from hamflow.flows.uncertainty import Uncertainty
from hamflow.methods.base import METHODS
from hamflow.training.fit import Samples, fitted
from hamflow.training.plan import Training


def test_the_uncertainty_is_the_logarithm_of_the_mean_loss():
    """Losses m(u) chi^2 with ln m = 1 + 2 cos(pi u) - cos(3 pi u) / 2 are found again."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(200_000, generator=generator, dtype=torch.float64)
    logarithm = 1 + 2 * torch.cos(math.pi * u) - torch.cos(3 * math.pi * u) / 2
    losses = logarithm.exp() * torch.randn(len(u), generator=generator, dtype=torch.float64) ** 2
    learned = Uncertainty().double()
    optimiser = torch.optim.LBFGS(learned.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = learned(u, losses).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    even = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    exact = 1 + 2 * torch.cos(math.pi * even) - torch.cos(3 * math.pi * even) / 2
    assert float((learned.of(even).detach() - exact).abs().max()) < 5 * math.sqrt(2 * 2 * 16 / len(u))


def test_every_time_adds_one_to_the_loss_after_a_training():
    """Of two narrow modes, whose velocity is easy to tell in between: E[loss e^-w] is 1 in each tenth of u."""
    plan = Training(train_kimg=512, batch=512, learning_rate=1e-2, ema_halflife_kimg=20)
    points = torch.tensor([[-1.0], [1.0]]).repeat(5000, 1)
    points += 0.3 * torch.randn(len(points), 1, generator=torch.Generator().manual_seed(3))
    trained = fitted(METHODS.build("velocity", **ENTRY, uncertainty=True).objective(FACTS, {}, 0), Samples(points), plan, 0)
    field, n = trained.field, 100_000
    generator = torch.Generator().manual_seed(2)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    x0, v0 = points[torch.arange(n) % len(points)], torch.randn(n, 1, generator=generator)
    with torch.no_grad():
        found = velocity_loss(field, field.flow, x0, v0, draw_times(ENTRY["times"], field.flow, u).to(x0))
        weighed = found * (-field.uncertainty.of(u)).exp().to(found)
    tenths = torch.stack([part[(10 * u).long() == k].mean() for k in range(10) for part in (weighed, found)]).reshape(10, 2)
    assert float((tenths[:, 0] - 1).abs().max()) < 0.1
    assert float(tenths[:, 1].max() / tenths[:, 1].min()) > 1.5


def test_without_it_nothing_is_learned_beside_the_network():
    assert METHODS.build("velocity", **ENTRY).objective(FACTS, {}, 0).field.uncertainty is None


@pytest.mark.parametrize("strata", [0, 8])
def test_it_goes_with_learned_times(strata):
    plan = Training(train_kimg=1, batch=64, learning_rate=1e-2, ema_halflife_kimg=0)
    data = Samples(torch.randn(100, 1, generator=torch.Generator().manual_seed(1)))
    trained = fitted(METHODS.build("velocity", **ENTRY, uncertainty=True, strata=strata).objective(FACTS, {}, 0), data, plan, 0)
    assert bool(trained.field.uncertainty.waves.isfinite().all())
    assert bool((trained.field.uncertainty.waves != 0).any())
