"""The analytic velocities of the phase-space figure."""

import numpy as np
import pytest
import torch

from hamflow import flows
from hamflow.studies.phase_space import FLOWS, MIXTURE, REACH, TAILS, Drawn, Spec, backward_paths, draw, run

SHOWN = [flows.build(name, **o) for name, o in FLOWS.values()]
ALL = pytest.mark.parametrize("flow", [*SHOWN, flows.build("pfgm", degrees=3, horizon=TAILS)], ids=lambda f: f.name)


@ALL
def test_running_backwards_is_the_quantile_map(flow):
    """In one dimension dx/dt = V keeps the order of points, hence each quantile (theory 4.2)."""
    levels = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    times = torch.linspace(flow.horizon, 0, 401, dtype=torch.float64)
    paths = backward_paths(flow, MIXTURE, MIXTURE.carried_by(flow, flow.horizon).quantile(levels)[:, None], times)
    for place in (100, 200, 300, 400):
        expected = MIXTURE.carried_by(flow, float(times[place])).quantile(levels)
        torch.testing.assert_close(paths[place, :, 0], expected, rtol=0, atol=1e-8)


@ALL
def test_the_drawn_lines_are_exact_to_a_thousandth_of_a_data_unit(flow):
    levels = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    times = torch.linspace(flow.horizon, 0, Spec().times, dtype=torch.float64)
    paths = backward_paths(flow, MIXTURE, MIXTURE.carried_by(flow, flow.horizon).quantile(levels)[:, None], times)
    torch.testing.assert_close(paths[-1, :, 0], MIXTURE.quantile(levels), rtol=0, atol=1e-3)


@ALL
def test_velocity_is_the_mean_of_simulated_velocities(flow):
    """E[v_t | x_t in a bin] over particles pushed by the flow itself, within 5 standard errors and the bin's width."""
    n, t = 400_000, 0.6 * flow.horizon
    rng = np.random.default_rng(0)
    x0 = MIXTURE.sample(n, rng)
    x, v = flow.push(x0, flow.couple(x0, flow.noise(Drawn(rng, n), (1,))), t)
    for centre in torch.linspace(-2, 2, 9, dtype=torch.float64):
        chosen = (x[:, 0] - centre).abs() < 0.05
        exact = MIXTURE.velocity_under(flow)(x[chosen], t).mean()
        assert abs(v[chosen].mean() - exact) < 5 * v[chosen].std() / chosen.sum().sqrt()


def test_the_fourth_panel_is_pfgm_and_leaves_the_others_as_they_are(tmp_path):
    small = {"particles": 40, "trajectories": 5, "times": 61}
    three, four = run(small), run(small | {"degrees": 1.0})
    assert three["flows"] == four["flows"][:3]
    assert "degrees" not in three["spec"]
    heavy = four["flows"][3]
    assert heavy["title"] == "PFGM"
    levels = (torch.arange(5, dtype=torch.float64) + 0.5) / 5
    ends = torch.tensor(heavy["solutions"][-1], dtype=torch.float64)
    torch.testing.assert_close(ends, MIXTURE.quantile(levels), rtol=0, atol=2e-3)
    draw(four, tmp_path / "four.png")
    assert (tmp_path / "four.png").stat().st_size > 10_000
    assert heavy["limits"] == [-REACH, REACH]
