"""Models as each other's critics: the differences of their exact score errors, on a mixture whose score is known."""

import numpy as np
import pytest
import torch

from hamflow.errors import ConfigurationError
from hamflow.score import hold_tournament, model_discrepancy

SIGMA = 0.4


def models(plane):
    """Denoisers that err by known amounts: shifted, shrunk, bent, and right."""
    return {
        "right": lambda y, sigma: plane.denoise(y, sigma),
        "shifted": lambda y, sigma: plane.denoise(y, sigma) + 0.1,
        "shrunk": lambda y, sigma: 0.85 * plane.denoise(y, sigma),
        "bent": lambda y, sigma: plane.denoise(y, sigma) + 0.08 * torch.sin(2 * y.flip(1)),
    }


def exact_errors(plane, count=20_000):
    """E|D - D*|^2 / sigma^2 a coordinate."""
    rng = np.random.default_rng(9)
    y = plane.sample(count, rng) + SIGMA * torch.from_numpy(rng.standard_normal((count, 2)))
    right = plane.denoise(y, SIGMA)
    return np.array([float((d(y, SIGMA) - right).square().mean()) / SIGMA**2 for d in models(plane).values()])


@pytest.fixture(scope="module")
def found(plane):
    return hold_tournament(models(plane), plane.sample(8000, np.random.default_rng(0)), SIGMA, horizon=0.5)


def test_differences_are_antisymmetric(found):
    for table in (found.duel_differences, found.loss_differences):
        np.testing.assert_allclose(table.values, -table.values.T, atol=1e-15)
        np.testing.assert_allclose(table.standard_errors, table.standard_errors.T, rtol=1e-10)


@pytest.mark.parametrize(("table", "scale"), [("loss_differences", 1.0), ("duel_differences", 0.5**2 / 3)])
def test_differences_are_those_of_the_exact_errors(plane, found, table, scale):
    """Within three standard errors, and the horizon's O(T^2) of a duel."""
    errors, measured = exact_errors(plane), getattr(found, table)
    exact = scale * (errors[:, None] - errors[None])
    allowed = 3.5 * measured.standard_errors + (0.15 * np.abs(exact) if table == "duel_differences" else 0.01 * np.abs(exact))
    assert (np.abs(measured.values - exact) <= allowed + 1e-15).all(), (measured.values, exact)


def test_the_order_is_that_of_the_exact_errors(plane, found):
    place, error = found.standings
    assert list(place.argsort()) == list(exact_errors(plane).argsort())
    assert place.sum() == pytest.approx(0, abs=1e-12)
    assert (error > 0).all()


def test_standard_errors_are_the_deviations_over_repeated_draws(plane):
    pair = {name: models(plane)[name] for name in ("shifted", "bent")}
    repeated = [hold_tournament(pair, plane.sample(300, np.random.default_rng(k)), SIGMA, seed=k) for k in range(60)]
    for table in ("loss_differences", "duel_differences"):
        values = [getattr(one, table).values[0, 1] for one in repeated]
        errors = [getattr(one, table).standard_errors[0, 1] for one in repeated]
        assert np.std(values) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.3)  # 9% is the error of 60 values


def test_what_nobody_can_know_of_the_data_cancels(plane):
    """|D + e - x_0|^2 - |D - x_0|^2 = 2 e . (D - x_0) + |e|^2: half the difference e has half the standard error."""
    shifts = {str(shift): lambda y, sigma, shift=shift: plane.denoise(y, sigma) + shift for shift in (0.0, 0.02, 0.04)}
    found = hold_tournament(shifts, plane.sample(1000, np.random.default_rng(0)), SIGMA)
    for table, rel in ((found.loss_differences, 1e-9), (found.duel_differences, 0.05)):
        assert table.standard_errors[0, 2] / table.standard_errors[0, 1] == pytest.approx(2, rel=rel)


def test_the_right_rival_gives_nearly_the_whole_discrepancy(plane, found):
    """A lower bound by the true score is sharp to leading order, and above what features find only by noise."""
    rival, value, error = found.rival_bound("shifted")
    exact = 0.5**2 / 3 * exact_errors(plane)[1]
    assert rival == "right"
    assert value == pytest.approx(exact, rel=0.15, abs=3 * error)
    data = plane.sample(8000, np.random.default_rng(0))
    features = model_discrepancy(models(plane)["shifted"], data, SIGMA, horizon=0.5, times=2, features=64)
    assert value > features.average - 3 * np.hypot(error, features.average_standard_error)


def test_what_is_no_tournament_is_refused(plane):
    data = plane.sample(20, np.random.default_rng(0))
    with pytest.raises(ConfigurationError, match="two models"):
        hold_tournament({"right": plane.denoise}, data, SIGMA)
    with pytest.raises(ConfigurationError, match="samples"):
        hold_tournament(models(plane), data[:7], SIGMA)
    with pytest.raises(ConfigurationError, match="sigma"):
        hold_tournament(models(plane), data, 0.0)
