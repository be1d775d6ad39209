"""The experiments on tiny settings: what they promise."""

import numpy as np
import pytest
import torch
from tiny_studies import TINY

from hamflow import flows
from hamflow.equivariant.bases import NormalBase
from hamflow.equivariant.encoders import CartesianEncoder
from hamflow.equivariant.energies import Energy, Quadratic
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence
from hamflow.files import read_json
from hamflow.sampling import time_grid
from hamflow.studies import gradients, multimodal, names

pytestmark = pytest.mark.xdist_group("studies")  # whose results are made once


def test_every_kind_is_tried():
    assert set(TINY) == set(names())


def test_discrepancy_ranks_networks_as_the_explicit_loss_does(results):
    assert read_json(results / "scatter.json")["spearman"] > 0.95


def test_taylor_ratio_is_within_five_per_cent_at_the_three_smallest_times(results):
    curve = read_json(results / "taylor.json")["curves"]["features"]
    assert np.abs(np.array(curve["ratio"][:3]) - 1).max() < 0.05 + 2 * max(curve["ratio_standard_error"][:3])
    assert curve["ratio"][3] < 0.95


def test_hamiltonian_gradients_have_the_better_signal_at_low_noise(results):
    series = read_json(results / "gradients.json")["series"]
    assert series["hsm"]["snr"] > max(series["dsm@sigma=0.01"]["snr"], series["dsm@sigma=0.01"]["resolved_snr"])
    medians = {name: np.median(values["std"]) for name, values in series.items()}
    assert medians["dsm@sigma=0.01"] > medians["dsm@sigma=0.05"] > medians["dsm@sigma=0.3"] > medians["hsm"]


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.zeros(40))

    def forward(self, x, t):
        return x @ self.theta


def test_resolved_signal_is_two_standard_errors_of_a_signal_that_is_not_there():
    """Gradients x of the loss sum_k theta_k x_k, x ~ N(0, diag): the estimate exceeds it about once in forty."""
    score, scale = Linear(), torch.linspace(0.2, 2.0, 40)
    beyond = []
    for seed in range(100):
        x = scale * torch.from_numpy(np.random.default_rng(seed).standard_normal((600, 40))).float()
        found = gradients._moments(score, lambda s, x, n: s(x), x, x)
        beyond.append(found["snr"] > found["resolved_snr"])
    assert 0.005 < np.mean(beyond) < 0.07


def test_comparison_has_every_method_at_both_budgets(results):
    content = read_json(results / "comparison.json")
    rows = {(row["method"], row["budget"]): row for row in content["rows"]}
    methods = ["hsm@form=scaled", "dsm@sigma=0.3", "ism", "ism@hutchinson", "ssm"]
    assert list(rows) == [(method, budget) for method in methods for budget in ("steps", "time")]
    for row in rows.values():
        errors = [one["score_error"] for one in row["runs"]]
        assert row["score_error"]["mean"] == pytest.approx(np.mean(errors))
        assert row["score_error"]["std"] == pytest.approx(np.std(errors, ddof=1))
    for method, updates in [("hsm@form=scaled", 20), ("dsm@sigma=0.3", 100), ("ism", 50), ("ism@hutchinson", 67), ("ssm", 67)]:
        assert rows[method, "steps"]["steps"] == 20
        assert rows[method, "time"]["steps"] == updates  # 20 updates at a cost of 5 fill the time
        assert rows[method, "time"]["time"] == pytest.approx(1, abs=0.01)
    assert content["training"]["cpu_milliseconds_an_update"].keys() == {method for method, _ in rows}


def test_symmetry_has_a_row_for_each_constraint_and_size(results):
    content = read_json(results / "symmetry.json")
    assert [(row["size"], row["constraint"]) for row in content["rows"]] == [
        (size, constraint) for size in (0, 50) for constraint in ("none", "soft", "hard")
    ]
    for row in content["rows"]:
        assert row["elbo"]["mean"] == pytest.approx(np.mean([one["elbo"] for one in row["runs"]]))
        assert row["bound"]["std"] == pytest.approx(np.std([one["bound"] for one in row["runs"]], ddof=1))
        assert [point["step"] for one in row["runs"] for point in one["curve"]] == [5, 10] * 2
        assert row["elbo"]["mean"] > content["floor"]
    hard, free = (np.mean([r["residual"]["mean"] for r in content["rows"] if r["constraint"] == c]) for c in ("hard", "none"))
    assert hard < 1e-10 < free


@pytest.mark.parametrize("study", ["symmetry", "particles"])
def test_a_hard_constraint_makes_the_representation_turn_with_its_data(results, study):
    for row in read_json(results / f"{study}.json")["rows"]:
        exact = row["constraint"] == "hard"
        assert (row["turning"]["mean"] < 1e-10, row["leakage"]["mean"] < 1e-8) == (exact, exact)


def test_the_learned_density_of_the_modes_integrates_to_one(results):
    """Importance weights whose mean is p(x) give a bound that integrates to a little less."""
    content = read_json(results / "multimodal.json")
    assert content["integral"] == pytest.approx(1, abs=0.1)
    assert content["gap"] > 0
    assert len(content["distance_of_modes"]) == 4
    assert len(content["clouds"]) == 3  # the base law and two Hamiltonians


def test_colour_shortens_the_way(results):
    result = read_json(results / "colour.json")
    white, coloured = (np.mean(curve["transport"]) for curve in result["curves"])
    assert coloured < white


def test_a_search_never_gets_worse_and_ends_with_options_of_a_method(results):
    result = read_json(results / "search.json")
    assert (np.diff(result["errors"]) <= 0).all()
    assert len(result["errors"]) + result["pruned"] == result["spec"]["trials"]
    assert result["pruned"] > 0
    assert np.mean(result["factors"]) == pytest.approx(1, abs=1e-5)
    colour, grid = result["best"]["colour"], result["best"]["grid"]
    flow = flows.build("oscillation_coloured", colour=colour)
    assert flow.options["colour"] == pytest.approx(colour)
    assert (np.diff(time_grid(flow, 9, grid)) < 0).all()


def test_local_minima_are_found_on_the_grid():
    axis = np.linspace(-2, 2, 41)
    x, y = np.meshgrid(axis, axis)
    double_well = (x**2 - 1) ** 2 + (y - 0.5) ** 2
    found = multimodal.local_minima(axis, double_well)
    np.testing.assert_allclose(found[found[:, 0].argsort()], [[-1, 0.5], [1, 0.5]], atol=1e-9)


class DoubleWell(Energy):
    """(x^2 - 1)^2 + (y - 1/2)^2, with minima at (-1, 1/2) and (1, 1/2)."""

    def forward(self, x):
        return (x[:, 0].square() - 1).square() + (x[:, 1] - 0.5).square()

    def gradient(self, x):
        return torch.stack([4 * x[:, 0] * (x[:, 0].square() - 1), 2 * (x[:, 1] - 0.5)], 1)


def test_minima_are_refined_between_the_points_of_the_grid():
    """Of a potential in units of 1.7 data units."""
    flow = HamiltonianSequence([Hamiltonian(Quadratic(), DoubleWell())])
    density = HamiltonianDensity(flow, NormalBase(2), CartesianEncoder(2, width=4), unit=1.7)
    found = multimodal.refined(density, np.array([[-1.5, 0.7], [1.8, 1.0]]))
    np.testing.assert_allclose(found / 1.7, [[-1, 0.5], [1, 0.5]], atol=1e-5)
