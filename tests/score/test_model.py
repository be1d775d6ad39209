"""The discrepancy of trained models, on data whose smoothed score is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from hamflow import flows, parameterisation
from hamflow.dynamics import ElasticBox, simulate
from hamflow.errors import ConfigurationError
from hamflow.methods.velocity import FlowGenerator, VelocityField
from hamflow.score import hamiltonian_score_discrepancy, model_discrepancy
from hamflow.score.discrepancy import average_weights
from hamflow.score.model import ModelSpec, implied_score, score_discrepancy

SIGMA = 0.5


@pytest.fixture(scope="module")
def data(plane):
    return plane.sample(8000, np.random.default_rng(0))


def wrong(plane, amount, kind):
    """A denoiser that errs by `amount`: shrunk towards zero, bent, or blind to one component."""
    errors = {
        "shrunk": lambda y, sigma: amount * plane.denoise(y, sigma),
        "bent": lambda y, sigma: amount * torch.sin(2 * y.flip(1)),
        "shifted": lambda y, sigma: amount * torch.ones_like(y),
    }
    return lambda y, sigma: plane.denoise(y, sigma) - errors[kind](y, sigma)


def test_right_denoiser_has_no_discrepancy(plane, data):
    """Of eight draws, the sizes in standard errors are those of eight unit normal numbers, and not above zero in the mean."""
    found = [model_discrepancy(plane.denoise, data, SIGMA, seed=seed) for seed in range(8)]
    z = np.array([each.average / each.average_standard_error for each in found])
    assert z.mean() < 2 / len(z) ** 0.5
    assert (z**2).sum() < stats.chi2.ppf(0.999, len(z))


def test_models_are_ranked_as_by_the_exact_score_error(plane, data):
    y = data + SIGMA * torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(data.shape)))
    models = [wrong(plane, a, kind) for kind in ("shrunk", "bent", "shifted") for a in (0.05, 0.13, 0.31)]
    errors, found = [], []
    for model in models:
        errors.append(float((model(y, SIGMA) - plane.denoise(y, SIGMA)).square().mean()) / SIGMA**2)
        found.append(model_discrepancy(model, data, SIGMA, features=96))
    assert stats.spearmanr(errors, [f.average for f in found]).statistic > 0.95
    for kind in range(3):  # more of the same error is significantly more
        for less, more in zip(found[3 * kind : 3 * kind + 2], found[3 * kind + 1 : 3 * kind + 3], strict=True):
            noise = np.hypot(less.average_standard_error, more.average_standard_error)
            assert more.average - less.average > 5 * noise


def test_short_horizon_gives_the_score_error_in_units_of_sigma(plane, data):
    """average -> (horizon^2 / 3) E|D - D*|^2 / (sigma^2 dimension), here for a constant error in the denoiser."""
    shift = 0.2
    found = model_discrepancy(wrong(plane, shift, "shifted"), data, SIGMA, horizon=0.1, times=2)
    leading = 0.1**2 / 3 * shift**2 / SIGMA**2
    assert found.times[-1] == pytest.approx(0.1, rel=1e-12)
    assert abs(found.average / leading - 1) < 2 * found.average_standard_error / leading + 0.02  # O(horizon^2)


@pytest.mark.parametrize(("scheme", "steps", "bound"), [("mclachlan", 2, 2e-8), ("leapfrog", 3, 2e-4)])
def test_integration_adds_little_to_the_discrepancy_where_the_data_hardly_vary(scheme, steps, bound):
    """The smoothed law of one point is N(0, sigma^2): its score moves (x, v) by a matrix M, and D = (M M^T)_xv^2 / (M M^T)_xx
    is zero for the exact motion. In units of sigma."""
    x, v = torch.eye(2, dtype=torch.float64)
    times, values = np.arange(1, steps + 1) / steps, []
    for t in range(1, steps + 1):
        x_t, v_t = simulate(lambda y, t: -y, x, v, t / steps, t, scheme)
        values.append(float((x_t @ v_t) ** 2 / (x_t @ x_t)))
    assert 0 < average_weights(times) @ np.array(values) < bound


def test_units_do_not_matter(plane, data):
    """Data, noise and model in other units of length: the same number, up to rounding."""
    one = model_discrepancy(wrong(plane, 0.2, "bent"), data, SIGMA)
    scaled = model_discrepancy(lambda y, sigma: 7 * wrong(plane, 0.2, "bent")(y / 7, sigma / 7), 7 * data, 7 * SIGMA)
    np.testing.assert_allclose(one.values, scaled.values, rtol=1e-6)


class Exact(torch.nn.Module):
    """A network that is never asked: the models below have exact velocities."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))


def model_of(flow, velocity, monkeypatch):
    model = FlowGenerator(VelocityField(flow, parameterisation.build("velocity", flow, 1.0), Exact(), (2,)))
    monkeypatch.setattr(model, "velocity", velocity)
    return model


@pytest.mark.parametrize("name", ["diffusion", "flow_matching", "oscillation"])
def test_implied_score_of_a_linear_flow_is_that_of_the_smoothed_data(plane, name, monkeypatch):
    flow = flows.build(name)

    def velocity(x, t, label=None):
        a, b, da, db = flow.coefficients(torch.as_tensor(t, dtype=torch.float64))
        return plane.regress(x, (a, b), (da, db))

    y = torch.from_numpy(np.random.default_rng(2).standard_normal((30, 2)))
    force = implied_score(model_of(flow, velocity, monkeypatch), SIGMA, batch=7)
    torch.testing.assert_close(force(y, 0.0), plane.smoothed(SIGMA).score(y), rtol=1e-9, atol=1e-9)


def test_implied_score_of_reflection_is_right_inside_its_walls(monkeypatch):
    """Uniform data stay uniform: V = 0, score 0. The walls preserve the uniform law; without them x escapes and D > 0."""
    flow = flows.build("reflection", low=-1.0, high=1.0)
    force = implied_score(model_of(flow, lambda x, t, label=None: 0 * x, monkeypatch), SIGMA)
    assert isinstance(force, ElasticBox)
    x = 2 * torch.from_numpy(np.random.default_rng(3).random((4000, 2))) - 1
    inside = score_discrepancy(force, x, SIGMA, estimator="binned", steps=8)
    assert abs(inside.average) < 2 * inside.average_standard_error
    outside = score_discrepancy(force.inside, x, SIGMA, estimator="binned", steps=8)
    assert outside.average > 10 * outside.average_standard_error


def test_labels_follow_their_rows(monkeypatch):
    """Row i of a call has label i, whether all rows are there or the first ones."""
    flow = flows.build("diffusion")
    seen = lambda x, t, label: x * label[:, None]  # noqa: E731
    label = torch.tensor([1, 2, 3])
    force = implied_score(model_of(flow, seen, monkeypatch), SIGMA, label=label, batch=2)
    x = torch.ones(3, 2, dtype=torch.float64)
    assert len(set(force(x, 0.0)[:, 0].tolist())) == 3
    for part in (1, 2):  # the first rows alone have the first labels
        assert torch.equal(force(x[:part], 0.0), force(x, 0.0)[:part])


def test_rows_of_a_force_are_the_samples(rng):
    """Samples of N(0, 1 / a) under their own force -a x, a by the row of the call: zero where each row keeps its sample."""
    stiffness = torch.tensor([1.0, 4.0], dtype=torch.float64).repeat_interleave(1000)[:, None]
    x = torch.from_numpy(rng.standard_normal((2000, 1))) / stiffness.sqrt()
    own, other = (
        score_discrepancy(lambda y, t, a=a: -a[: len(y)] * y, x, SIGMA, batch=2000) for a in (stiffness, 5 - stiffness)
    )
    assert abs(own.average) < 3 * own.average_standard_error
    assert other.average > 4 * other.average_standard_error


def test_no_noise_or_horizon_is_refused(plane, data):
    with pytest.raises(ConfigurationError, match="sigma"):
        model_discrepancy(plane.denoise, data, 0.0)
    with pytest.raises(ConfigurationError, match="horizon"):
        model_discrepancy(plane.denoise, data, SIGMA, horizon=0.0)
    assert ModelSpec().horizon < np.pi / 2


def test_average_needs_no_dimension(plane, data):
    """Per coordinate: the plain discrepancy divided by D."""
    y = data + SIGMA * torch.from_numpy(np.random.default_rng(4).standard_normal(tuple(data.shape)))
    force = lambda x, t: 0.5 * plane.smoothed(SIGMA).score(x)  # noqa: E731
    times = SIGMA * np.arange(1, 5) / 4
    whole = hamiltonian_score_discrepancy(force, y, times, estimator="features", steps=4, scheme="mclachlan")
    each = score_discrepancy(force, y, SIGMA)
    for name in ("average", "average_standard_error", "average_integration_error"):
        assert getattr(each, name) == pytest.approx(getattr(whole, name) / 2, rel=1e-9)
