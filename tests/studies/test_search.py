"""A search of force fields: what is interrupted goes on to the same result, and finds what is known to be best."""

import sys

import numpy as np
import pytest
import torch
from tiny_studies import TINY

from hamflow import draws
from hamflow.errors import ConfigurationError
from hamflow.studies import search


class Killed(Exception):
    pass


def without_seconds(result):
    return {key: value for key, value in result.items() if key != "training"}


@pytest.fixture(scope="module")
def whole():
    return without_seconds(search.run(TINY["search"]))


@pytest.mark.parametrize("measured", [1, 7, 13])
def test_an_interrupted_search_goes_on_to_the_same_result(whole, tmp_path, monkeypatch, measured):
    """Interrupted among the known candidates, and twice within a trial of which one mixture is done."""
    errors, left = search._Problem.errors, [measured]

    def errors_until_killed(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return errors(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(search._Problem, "errors", errors_until_killed)
        with pytest.raises(Killed):
            search.run(TINY["search"], tmp_path / "trials")
    assert without_seconds(search.run(TINY["search"], tmp_path / "trials")) == whole


def test_more_trials_go_on_from_those_that_are_there(whole, tmp_path):
    few = TINY["search"] | {"trials": 7}
    search.run(few, tmp_path / "trials")
    found = without_seconds(search.run(TINY["search"], tmp_path / "trials"))
    assert found == whole


def test_another_seed_or_law_does_not_go_on_from_these(whole, tmp_path):
    search.run(TINY["search"] | {"trials": 6}, tmp_path / "trials")
    other = search.run(TINY["search"] | {"seed": 1}, tmp_path / "trials")
    assert without_seconds(other) == without_seconds(search.run(TINY["search"] | {"seed": 1}))
    assert other["errors"] != whole["errors"]


def test_one_gaussian_asks_for_its_own_colour(monkeypatch):
    """With g = 1 the velocity of Gaussian data is zero, and one step of Euler is exact: the search comes near to it."""
    generator = draws.generator(0, "test of the search")
    rows = generator.standard_normal((400, 3)) * [0.2, 1.0, 3.0]
    monkeypatch.setattr(search.base, "standardised", lambda source: torch.from_numpy(rows / np.sqrt(rows.var(0).mean())))
    proxy = {"components": 1, "fits": 1, "starts": 50, "ridge": 0.01, "precise": 20}
    found = search.run({"proxy": proxy, "judges": 1, "sampler": "euler", "nfe": 2, "bands": 2, "trials": 5, "lengths": 2})
    errors = {one["colour"]: one["mean"][0] for one in found["known"]}
    assert sorted(errors, key=errors.get) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert errors[1.0] < 0.02
    assert found["best"]["colour"][1] - found["best"]["colour"][0] == pytest.approx(
        np.log(found["spectrum"][-1] / found["spectrum"][0]), rel=1e-3
    )


def test_without_optuna_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match="optuna is not installed") as refused:
        search.run(TINY["search"])
    assert "hamflow[search]" in refused.value.fix


def test_a_sampler_that_chooses_its_own_steps_is_refused():
    with pytest.raises(ConfigurationError, match="chooses its own steps"):
        search.run(TINY["search"] | {"sampler": "dopri5"})
