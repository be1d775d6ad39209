"""The table of solvers' errors on exact velocities: Kendall's tau of rankings that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hamflow import config
from hamflow.report import proxy

COLOURS = {"white": 0.0, "little": 0.3, "half": 0.5, "much": 0.8, "full": 1.0}
SAMPLING = {"settings": [["euler", 4]], "grid": "uniform", "rho": 7.0, "sigma_min": 0.002, "sigma_max": 80.0}


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    x = torch.from_numpy(generator.standard_normal((200, 3)) * [0.3, 1.0, 2.0])
    return SimpleNamespace(count=len(x), batch=lambda rows: (x[rows], None), sigma_data=float(x.std()), box=(-9.0, 9.0))


@pytest.fixture(scope="module")
def spec():
    flows = {name: {"name": "oscillation_coloured", "colour": g, "alpha": "auto"} for name, g in COLOURS.items()}
    methods = {name: {"flow": flow, "sampling": SAMPLING} for name, flow in flows.items()}
    methods["walls"] = {"flow": {"name": "reflection"}, "sampling": SAMPLING}
    return {"proxy": {"components": 2, "fits": 2, "starts": 20}, "datasets": {"digits": methods}}


@pytest.fixture(scope="module")
def errors(spec, data):
    found = proxy._errors(spec["proxy"], spec["datasets"]["digits"], data)
    return {method: float(error.mean()) for (method, _, _), error in found.items()}


@pytest.mark.parametrize(("sign", "tau"), [(1, 1.0), (-1, -1.0)])
def test_tau_is_one_of_equal_rankings_and_minus_one_of_opposite_ones(tmp_path, records, spec, data, errors, sign, tau):
    values = {(name, "euler", 4): 10 + sign * error for name, error in errors.items()} | {("walls", "euler", 4): 1.0}
    frame = proxy.tabulate(records(values, deviation=1e-9), spec, {"digits": data}, tmp_path)
    assert set(frame["method"]) == set(COLOURS)  # the reflection has no exact velocity
    assert frame["proxy"].tolist() == pytest.approx([errors[name] for name in frame["method"]])
    assert frame[["tau", "low", "high"]].to_numpy() == pytest.approx(np.full((len(COLOURS), 3), tau))
    text = (tmp_path / "proxy.md").read_text()
    assert "Kendall" in text
    assert f"{tau:.2f}" in text


def test_chance_in_the_distances_widens_the_interval(tmp_path, records, spec, data, errors):
    values = {(name, "euler", 4): 10 + error for name, error in errors.items()}
    frame = proxy.tabulate(records(values, deviation=5.0), spec, {"digits": data}, tmp_path)
    assert frame["low"].iloc[0] < 0.5


def test_few_methods_have_no_tau_and_what_has_no_exact_velocity_no_line(tmp_path, records, spec, data):
    two = {("white", "euler", 4): 1.0, ("full", "euler", 4): 2.0}
    assert proxy.tabulate(records(two), spec, {"digits": data}, tmp_path)["tau"].isna().all()
    assert proxy.tabulate(records({("walls", "euler", 4): 1.0}), spec, {"digits": data}, tmp_path / "none").empty
    assert (tmp_path / "none" / "proxy.csv").read_text().startswith("preset,dataset,method")


def test_the_specification_has_velocity_fields_alone():
    parameters = config.load(["params.yaml", "workflow/presets/smoke.yaml"])
    found = config.proxy_spec(parameters)["datasets"]
    assert "edm" in found["digits"]
    assert "stylegan2_ada" not in found["digits"]
    assert found["digits"]["edm"]["flow"] == parameters["methods"]["edm"]["flow"]
