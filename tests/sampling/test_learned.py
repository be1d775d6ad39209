"""Learned solvers: better than any made by hand, saved and checked like a checkpoint."""

import time

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.errors import CheckpointError, ConfigurationError
from hamflow.files import save_tensors
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.solver import learn
from hamflow.sampling import count_evaluations, names, solve
from hamflow.sampling.learned import LearnedSolver, _adams, angle_grid, hand_made_grids, precise_ends
from hamflow.sampling.solvers import SOLVERS

TINY = GaussianMixture([0.3, 0.3, 0.4], [[-1.0, 0.2], [0.8, 0.9], [0.5, -1.0]], [0.25, 0.3, 0.2])


def rms(found, wanted):
    return float((found - wanted).square().mean().sqrt())


def best_hand_made(velocity, flow, starts, ends, nfe):
    """The smallest error of all samplers that spend nfe evaluations, a step each, on all grids."""
    singles = [name for name in names() if (SOLVERS[name].slope, SOLVERS[name].offset) == (1, 0)]
    with torch.no_grad():
        return min(
            rms(solve(name, velocity, starts, times, flow), ends) for name in singles for times in hand_made_grids(flow, nfe)
        )


@pytest.fixture(scope="module")
def tiny():
    flow = flows.build("oscillation", alpha=1.0)
    velocity = TINY.velocity_under(flow)
    starts = flow.terminal(torch.from_numpy(np.random.default_rng(0).standard_normal((384, 2))))
    return flow, velocity, starts, precise_ends(velocity, flow, starts)


@pytest.mark.parametrize("times_only", [False, True])
def test_learning_beats_the_hand_on_starts_it_has_not_seen(tiny, times_only):
    flow, velocity, starts, ends = tiny
    solver = learn(velocity, flow, starts[:256], 4, steps=200, times_only=times_only)
    assert solver.nfe == 4
    error = rms(solver(velocity, starts[256:]), ends[256:])
    if times_only:
        torch.testing.assert_close(solver.weights, _adams(solver.times))
    assert error < best_hand_made(velocity, flow, starts[256:], ends[256:], 4)


def test_the_start_is_adams_bashforth(tiny):
    flow, velocity, starts, _ = tiny
    for times in hand_made_grids(flow, 5)[:4]:
        solver = LearnedSolver(times, _adams(times), {})
        counted = count_evaluations(velocity)
        expected = solve("multistep", velocity, starts[:9], times)
        torch.testing.assert_close(solver(counted, starts[:9]), expected, rtol=1e-12, atol=1e-12)
        assert counted.count == solver.nfe == 5
        torch.testing.assert_close(_adams(times.clone().requires_grad_()), _adams(times))


@pytest.mark.parametrize("name", ["oscillation", "flow_matching", "diffusion"])
def test_the_first_grid_has_even_angles_the_same_for_each_flow(name):
    flow = flows.build(name)
    times = angle_grid(flow, 6, 0.5)
    angles = (flow.sigma(times) / 0.5).atan()
    torch.testing.assert_close(angles[:-1].diff(), angles[:-1].diff().mean().expand(5), rtol=0, atol=1e-3)
    assert (float(times[0]), float(times[-1])) == (flow.horizon, 0.0)


def test_it_comes_back_from_its_file_and_is_of_one_flow_and_nfe(tiny, tmp_path):
    flow, *_ = tiny
    times = hand_made_grids(flow, 5)[0]
    solver = LearnedSolver(times, _adams(times), {"name": flow.name, **flow.options})
    solver.save(tmp_path / "solver.safetensors")
    again = LearnedSolver.load(tmp_path / "solver.safetensors")
    assert torch.equal(again.times, times)
    assert torch.equal(again.weights, solver.weights)
    assert LearnedSolver.fitting(again, flow, 5) is again
    for given, other, nfe, told in [
        (None, flow, 5, "has none"),
        (again, flow, 8, "spends 5.*nfe = 8"),
        (again, flows.build("oscillation", alpha=2.0), 5, "not of"),
        (again, flows.build("diffusion"), 5, "diffusion"),
    ]:
        with pytest.raises(ConfigurationError, match=told):
            LearnedSolver.fitting(given, other, nfe)


@pytest.mark.parametrize("spoil", ["kind", "shape", "order", "nan"])
def test_another_file_is_refused(tmp_path, spoil):
    times, weights = torch.linspace(1, 0, 4).double(), torch.ones(3, 3).double()
    weights = weights[:2] if spoil == "shape" else weights * float("nan") if spoil == "nan" else weights
    kind = "x" if spoil == "kind" else "solver"
    times = times.flip(0) if spoil == "order" else times
    save_tensors(tmp_path / "s", {"times": times, "weights": weights}, {"kind": kind, "flow": {}})
    with pytest.raises(CheckpointError, match="no learned solver"):
        LearnedSolver.load(tmp_path / "s")


class FullMixture:
    """A mixture of normal laws with full covariances, for its exact velocity under the oscillation."""

    def __init__(self, weights, means, covariances):
        self.log_weights, self.means = torch.from_numpy(weights).log(), torch.from_numpy(means)
        self.values, self.axes = torch.linalg.eigh(torch.from_numpy(covariances))  # [K, D], [K, D, D]

    def velocity_under(self, flow):
        def velocity(x, t):
            a, b, a_dot, b_dot = flow.coefficients(torch.as_tensor(t, dtype=torch.float64))
            total = a**2 * self.values + b**2
            along = torch.einsum("nkd,kde->nke", x[:, None] - a * self.means, self.axes)
            log = self.log_weights - total.log().sum(1) / 2 - (along.square() / total).sum(2) / 2
            slope = (a * a_dot * self.values + b * b_dot) / total
            each = a_dot * self.means + torch.einsum("nke,kde->nkd", slope * along, self.axes)
            return (log.softmax(1)[:, :, None] * each).sum(1)

        return velocity


@pytest.mark.slow
@pytest.mark.parametrize("nfe", [5, 8])
def test_on_the_digits_mixture_the_error_is_a_third_of_the_best_by_hand(nfe):
    """Exact velocities of 20 components fitted to the 8x8 digits, 512 pairs to learn from, 512 others to judge by."""
    sklearn_mixture = pytest.importorskip("sklearn.mixture")
    from sklearn.datasets import load_digits

    x = load_digits().data / 8 - 1
    fitted = sklearn_mixture.GaussianMixture(20, reg_covar=1e-3, random_state=0).fit(x)
    flow = flows.build("oscillation", alpha=float(1 / (x - x.mean(0)).std()))
    velocity = FullMixture(fitted.weights_, fitted.means_, fitted.covariances_).velocity_under(flow)
    starts = flow.terminal(torch.from_numpy(np.random.default_rng(0).standard_normal((1024, 64))))
    ends = precise_ends(velocity, flow, starts[512:])
    began = time.process_time()
    solver = learn(velocity, flow, starts[:512], nfe)
    spent = time.process_time() - began
    learned, by_hand = rms(solver(velocity, starts[512:]), ends), best_hand_made(velocity, flow, starts[512:], ends, nfe)
    scale = float(ends.square().mean().sqrt())
    print(f"nfe {nfe}: learned {learned / scale:.4f}, by hand {by_hand / scale:.4f}, {spent:.0f} CPU-s")
    assert learned <= by_hand / 3
    assert spent < 60
