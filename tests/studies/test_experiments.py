"""The experiments on tiny settings: what they promise, files, figures, and the command line."""

import json

import numpy as np
import pytest
import torch

from hamflow.cli import main
from hamflow.equivariant.bases import NormalBase
from hamflow.equivariant.encoders import CartesianEncoder
from hamflow.equivariant.energies import Energy, Quadratic
from hamflow.equivariant.flow import Hamiltonian, HamiltonianDensity, HamiltonianSequence
from hamflow.errors import ConfigurationError, DataError
from hamflow.files import read_json, write_json
from hamflow.pipeline.paths import Preset
from hamflow.pipeline.targets import STUDY_TABLES
from hamflow.studies import about, figure, get, gradients, multimodal, names, run
from hamflow.studies.comparison import COSTS

NET = {"kind": "small", "width": 32, "depth": 2}
QUICK = {"train_kimg": 1.28, "batch": 64}
TINY = {
    "mixture": {"network": NET, "hamiltonian": {"critic": NET}, "training": QUICK, "evaluation": 500, "grid": 9},
    "scatter": {"networks": 12, "data": 4000, "samples": 1500, "times": 3, "evaluation": 4000, "options": {"features": 64}},
    "taylor": {
        "network": NET,
        "times": [0.02, 0.04, 0.06, 0.3],
        "samples": 20_000,
        "estimators": {"features": {}},
        "mixture": {"weights": [1.0], "means": [[0.0, 0.0]], "sds": [1.0]},
    },
    "gradients": {
        "network": NET,
        "samples": 1024,
        "critic": NET,
        "critic_samples": 4000,
        "critic_training": {"train_kimg": 51.2},
    },
    "comparison": {
        "network": NET,
        "hamiltonian": {"critic": NET},
        "training": QUICK,
        "seeds": 2,
        "sigmas": [0.3],
        "samples": 600,
        "times": 2,
        "evaluation": 500,
        "forms": {"scaled": {"critic_steps": 3}},
        "costs": {"hsm@form=scaled": 5, "dsm": 1, "ism": 2, "ism@hutchinson": 1.5, "ssm": 1.5},
    },
    "colour": {
        "components": 4,
        "fits": 2,
        "powers": [0.0, 0.75],
        "nfe": [5],
        "starts": 24,
        "precise": 12,
        "search": {"bands": 2, "nfe": 5, "trials": 8, "starts": 8},
    },
    "phase_space": {"particles": 50, "trajectories": 3, "times": 9},
    "reflection": {"points": 100},
    "symmetry": {
        "sizes": [0, 50],
        "seeds": 2,
        "density": {"width": 8, "steps": 1, "hamiltonians": 1},
        "training": {"train_kimg": 0.64, "batch": 64},
        "momenta": 2,
        "evaluation": 100,
        "reports": 2,
    },
    "particles": {
        "seeds": 2,
        "density": {"width": 8, "steps": 1, "hamiltonians": 1},
        "training": {"train_kimg": 0.64, "batch": 64},
        "momenta": 2,
        "evaluation": 100,
        "reports": 2,
    },
    "multimodal": {
        "density": {"kinetic": "quadratic", "width": 16, "steps": 2},
        "training": {"train_kimg": 2.56, "batch": 128},
        "samples": 200,
        "momenta": 16,
        "grid": 41,
    },
    "bridge": {
        "density": {"kinetic": "quadratic", "width": 16, "hamiltonians": 1, "steps": 2},
        "training": {"train_kimg": 1.28, "batch": 128},
        "network": {"kind": "mlp", "width": 16, "depth": 1},
        "regression": QUICK,
        "samples": 200,
        "probes": 300,
        "frozen": 2,
        "steps": 3,
    },
}
PARAMETERS = {"preset": "toy", "studies": TINY}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    preset = Preset("toy", tmp_path_factory.mktemp("studies"))
    for kind, spec in TINY.items():
        write_json(preset.study(kind), run(kind, spec))
    return preset.study("mixture").parent


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


def test_colour_shortens_the_way_and_the_search_never_gets_worse(results):
    result = read_json(results / "colour.json")
    white, coloured = (np.mean(curve["transport"]) for curve in result["curves"])
    assert coloured < white
    found = result["search"]
    assert len(found["loss"]) >= 8
    assert (np.diff(found["loss"]) <= 0).all()
    assert np.mean(found["factors"]) == pytest.approx(1, abs=1e-5)
    assert (np.diff(found["times"]) < 0).all()


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


@pytest.fixture
def there(results, monkeypatch):
    """The working directory in which the results lie."""
    monkeypatch.chdir(results.parents[2])


@pytest.mark.parametrize("name", figure.names(PARAMETERS))
def test_every_result_has_a_figure_of_fixed_bytes(there, name, tmp_path):
    assert figure.inputs(PARAMETERS, name)["result"].exists()
    for output in ("one.png", "two.png"):
        figure.draw(PARAMETERS, name, tmp_path / output)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.pdf").stat().st_size > 0


def test_a_figure_shows_the_result_and_nothing_is_computed_for_it(there, tmp_path):
    for kind in ("phase_space", "reflection"):
        path = Preset("toy").study(kind)
        figure.draw(PARAMETERS, f"study-{kind}", tmp_path / "one.png")
        result = read_json(path)
        write_json(path, result | {"points": [[[0.5, 0.5]]] * 5, "flows": result.get("flows", [])[::-1]})
        figure.draw(PARAMETERS, f"study-{kind}", tmp_path / "two.png")
        write_json(path, result)
        assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", names())
def test_the_caption_is_the_first_paragraph_of_the_file(name):
    assert len(about(name)) > 60
    assert "toy" in figure.caption(PARAMETERS, f"study-{name}")


def test_comparison_table_has_a_line_for_each_row(there, results, tmp_path):
    figure.tabulate(PARAMETERS, "comparison", tmp_path / "table.csv")
    rows = read_json(results / "comparison.json")["rows"]
    head, *lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    assert head[:3] == ["method", "budget", "updates"]
    assert [line[:3] for line in lines] == [[row["method"], row["budget"], str(row["steps"])] for row in rows]
    errors = [float(line[head.index("score_error_std")]) for line in lines]
    assert errors == pytest.approx([row["score_error"]["std"] for row in rows], rel=1e-3)
    assert len((tmp_path / "table.md").read_text().splitlines()) == len(rows) + 2


WRONG = {"a list": [], "a text": "x", "nothing": {}, "rows of texts": {"rows": ["x"]}, "no curves": {"curves": {}}}
WRONG |= {"fields of texts": {"fields": "x"}, "flows of texts": {"flows": ["x"]}}
WRONG |= {"no points": {"times": [1], "points": []}}


@pytest.mark.parametrize("study", names())
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_result_is_a_paragraph(tmp_path, monkeypatch, study, case):
    monkeypatch.chdir(tmp_path)
    path = Preset("toy").study(study)
    write_json(path, WRONG[case])
    with pytest.raises(DataError, match=f"{study}.json is no complete result"):
        figure.draw(PARAMETERS, f"study-{study}", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_a_result_that_is_not_there_is_a_paragraph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"comparison\.json"):
        figure.tabulate(PARAMETERS, "comparison", tmp_path / "out.csv")


def test_a_symmetry_table_has_the_gains_of_pairs_of_runs(there, results, tmp_path):
    figure.tabulate(PARAMETERS, "symmetry", tmp_path / "table.csv")
    head, *lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    rows = read_json(results / "symmetry.json")["rows"]
    assert [line[:2] for line in lines] == [[str(row["size"] or "endless"), row["constraint"]] for row in rows]
    for first, line, row in zip([rows[0]] * 3 + [rows[3]] * 3, lines, rows, strict=True):
        apart = np.array([a["elbo"] - b["elbo"] for a, b in zip(first["runs"], row["runs"], strict=True)])
        assert float(line[head.index("elbo_gain")]) == pytest.approx(apart.mean(), rel=1e-3)
        error = float(line[head.index("elbo_gain_standard_error")])
        assert error == pytest.approx(apart.std(ddof=1) / len(apart) ** 0.5, rel=1e-3)


def test_a_density_s_own_score_has_the_least_discrepancy_on_its_samples(results):
    """Of a density that is barely trained, so that the score of the data is another."""
    rows = {row["force"]: row for row in read_json(results / "bridge.json")["rows"]}
    assert list(rows) == ["none", "score of the data", "its own score", "U"]
    assert rows["its own score"]["hsd"] < min(rows[name]["hsd"] for name in ("none", "score of the data"))


def test_every_study_with_a_table_is_known_to_the_workflow():
    assert sorted(STUDY_TABLES.values()) == [name for name in names() if hasattr(get(name), "tabulate")]


def test_only_some_studies_have_a_table(there, tmp_path):
    with pytest.raises(ConfigurationError, match="'mixture' has no table.*\n.*comparison"):
        figure.tabulate(PARAMETERS, "mixture", tmp_path / "table.csv")
    with pytest.raises(ConfigurationError, match="no study 'mixtur'.*\n.*mixture"):
        figure.tabulate(PARAMETERS, "mixtur", tmp_path / "table.csv")


@pytest.mark.parametrize("kind", ["comparison", "mixture"])
def test_command_line_repeats_every_value(results, tmp_path, kind):
    """These two measure times, which stand beside the record and nowhere else."""
    assert main(["study", f"p/{kind}", "--spec", json.dumps(TINY[kind]), "--output", str(tmp_path / "record.json")]) == 0
    paths = (tmp_path / "record.json", tmp_path / "record.run.json", results / f"{kind}.json")
    record, beside, before = (read_json(path) for path in paths)
    assert beside["training"].keys() == before.pop("training").keys()
    assert beside["wall_seconds"] > 0
    assert not beside.keys() & record["provenance"].keys()
    assert {key: value for key, value in record.items() if key != "provenance"} == before


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("mixture", {"netwrok": NET}, "network"),
        ("mixture", {"hamiltonian": {"horizn": 1}}, "horizon"),
        ("mixture", {"mixture": {"weights": [0.5], "means": [[0.0, 0.0]], "sds": [1.0]}}, "mixture"),
        ("comparison", {"seed": 0, "seeeds": 1}, "seeds"),
        ("comparison", {"costs": {"dsm": 1.0}}, "hsm@form=scaled"),
        ("comparison", {"costs": {**COSTS, "ssm": 0}}, "ssm"),
    ],
)
def test_misspelt_keys_are_refused_with_the_nearest(kind, spec, words):
    with pytest.raises(ConfigurationError, match=words):
        run(kind, spec)


def test_command_line_says_what_is_wrong_with_a_specification(capsys, tmp_path):
    assert main(["study", "p/taylor", "--spec", "{", "--output", str(tmp_path / "x.json")]) == 2
    assert "not JSON" in capsys.readouterr().err
