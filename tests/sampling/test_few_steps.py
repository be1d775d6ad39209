"""What is worth most with few evaluations: where the times stand, and where the sampler starts."""

import itertools

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import ConfigurationError, NotOffered
from hamflow.laws.mixtures import GaussianMixture
from hamflow.sampling import solve, time_grid
from hamflow.sampling.gits import gits_grid
from hamflow.sampling.teleportation import Teleport

FLOWS = [flows.build("flow_matching"), flows.build("oscillation", alpha=1.5), flows.build("diffusion", horizon=10.0)]
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.2], [0.6, 0.4]], [[0.4, 0.5], [0.5, 0.3]])


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_teleportation_solves_the_field_of_a_normal_law(flow):
    law = GaussianMixture([1.0], [[0.4, -0.3]], [[0.5, 0.8]])
    teleport = Teleport(law.means[0], law.sds[0].square(), torch.eye(2, dtype=torch.float64), 0.7)
    x = flow.terminal(torch.from_numpy(np.random.default_rng(0).standard_normal((20, 2))))
    late = torch.linspace(flow.horizon, teleport.time(flow), 200, dtype=torch.float64)
    torch.testing.assert_close(teleport(flow, x), solve("rk4", law.velocity_under(flow), x, late), rtol=0, atol=1e-6)


def test_teleportation_turns_with_the_data():
    rng = np.random.default_rng(1)
    data = torch.from_numpy(rng.standard_normal((500, 3)) * [0.2, 0.5, 1.0])
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((3, 3))))[0]
    x = torch.from_numpy(rng.standard_normal((9, 3)))
    turned = Teleport.of(data @ turn, 1.0)(FLOWS[1], x @ turn)
    torch.testing.assert_close(turned, Teleport.of(data, 1.0)(FLOWS[1], x) @ turn, rtol=0, atol=1e-10)


def test_teleportation_needs_normal_noise():
    with pytest.raises(NotOffered, match="reflection"):
        Teleport.of(torch.randn(9, 2), 1.0)(flows.build("reflection"), torch.zeros(1, 2))


@pytest.mark.parametrize("kind", ["edm", "uniform", "power"])
def test_a_grid_may_start_late(kind):
    times = time_grid(FLOWS[1], 5, kind, start=0.5)
    assert (float(times[0]), float(times[-1]), len(times)) == (0.5, 0.0, 6)
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_gits_finds_the_best_of_all_sub_grids(steps):
    """Against every choice of times, by its own measure."""
    flow, fine = FLOWS[1], time_grid(FLOWS[1], 6, "uniform")
    velocity = MIXTURE.velocity_under(flow)
    x = flow.terminal(torch.from_numpy(np.random.default_rng(2).standard_normal((20, 2))))
    states = [x]
    for t in range(6):
        states.append(heun(velocity, states[-1], *fine[t : t + 2]))

    def cost(chosen):
        return sum(
            float((states[i] + (fine[j] - fine[i]) * velocity(states[i], fine[i]) - states[j]).square().mean(1).sqrt().mean())
            for i, j in itertools.pairwise(chosen)
        )

    ways = [(0, *middle, 6) for middle in itertools.combinations(range(1, 6), steps - 1)]
    best = min(ways, key=cost)
    assert gits_grid(velocity, flow, x, steps, fine).tolist() == fine[list(best)].tolist()


def heun(velocity, x, t, after):
    slope = velocity(x, t)
    return x + (after - t) / 2 * (slope + velocity(x + (after - t) * slope, after))


def test_gits_refuses_more_steps_than_there_are():
    with pytest.raises(ConfigurationError, match="cannot be chosen"):
        gits_grid(MIXTURE.velocity_under(FLOWS[0]), FLOWS[0], torch.zeros(1, 2), 7, time_grid(FLOWS[0], 6))
