"""The estimators of the discrepancy against closed forms, in units of their own standard errors."""

import functools
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from hamflow.errors import ConfigurationError, DivergenceError
from hamflow.laws.gaussian_toy import GaussianToy
from hamflow.score import hamiltonian_score_discrepancy
from hamflow.score.discrepancy import MOST_STEPS, average_weights
from hamflow.score.estimators.partition import equal_cells

EVERY = ["binned", "critic", "features", "neighbours"]
USUALLY = [pytest.param(name, marks=pytest.mark.slow) if name == "critic" else name for name in EVERY]
FAST = {"critic": {"training": {"train_kimg": 19.2, "batch": 128}}}
TOYS = [(1.0, 0.5), (0.8, 2.0), (1.2, 0.0), (1.0, -1.0)]  # (s, a): soft, stiff, free, unstable
TIMES = (0.2, 0.4, 0.6)


def joint(z):
    """Whether so many independent comparisons hold together: their chi-square, and how many lie within two standard errors.

    Each of many right numbers is within two of its standard errors with probability .954, so that all of them cannot be.
    """
    z = np.asarray(z)
    within = int((np.abs(z) < 2).sum())
    chi_square = stats.chi2.sf((z**2).sum(), len(z)) > 0.01
    return bool(chi_square and within >= stats.binom.ppf(0.01, len(z), 0.954))


def limit(comparisons):
    """The |z| that a correct estimator stays within in all of so many comparisons as often as in one within 2."""
    return stats.norm.isf(stats.norm.sf(2) / comparisons)


@functools.cache
def toy_discrepancy(estimator, s, a, seed=0, n=10_000, times=TIMES):
    x = s * torch.from_numpy(np.random.default_rng(100 + seed).standard_normal((n, 1)))
    options = {"single_time": True, **FAST.get(estimator, {})}
    return hamiltonian_score_discrepancy(lambda y, t: -a * y, x, times, estimator=estimator, seed=seed, **options)


@pytest.mark.parametrize("estimator", USUALLY)
def test_gaussian_closed_form_within_two_standard_errors(estimator):
    """On the grid of (s, a, t), each point on samples of its own."""
    z = []
    for seed, ((s, a), t) in enumerate(itertools.product(TOYS, TIMES)):
        found = toy_discrepancy(estimator, s, a, seed, n=5000, times=(t,))
        z.append(float((found.values - GaussianToy(s, a).discrepancy((t,)).numpy())[0] / found.standard_errors[0]))
    assert joint(z), [round(value, 2) for value in z]


def test_a_joint_comparison_fails_where_one_number_or_all_are_wrong():
    z = np.random.default_rng(0).standard_normal((200, 12))
    rejected = [not joint(row) for row in z]
    assert np.mean(rejected) < 0.05
    assert not joint(z[0] + 2)
    assert not joint([5.0, *z[0][1:]])


CASES = [(1.4, 0.0), (0.9, 3.0), (0.7, -0.6), (0.9, 1 / 0.81)]


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("n", [10_000, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("s", "a"), CASES)
def test_default_estimate_is_within_three_standard_errors_and_a_percent(s, a, n, dimension):
    x = s * torch.from_numpy(np.random.default_rng(7).standard_normal((n, dimension)))
    found = hamiltonian_score_discrepancy(lambda y, t: -a * y, x, (0.2, 0.6, 1.1))
    exact = dimension * GaussianToy(s, a).discrepancy(found.times).numpy()
    assert found.converged
    assert (np.abs(found.values - exact) <= 3 * found.standard_errors + 0.01 * exact).all()


@functools.cache
def integrated(s, a, steps, scheme="blanes_moan4"):
    """The estimate on the same samples and velocities, whatever the integration."""
    x = s * torch.from_numpy(np.random.default_rng(8).standard_normal((2000, 1)))
    return hamiltonian_score_discrepancy(
        lambda y, t: -a * y, x, (0.3, 0.6), estimator="features", steps=steps, scheme=scheme, features=16
    )


@pytest.mark.parametrize(
    ("scheme", "steps", "order"),
    [("leapfrog", 16, 2), ("mclachlan", 8, 2), ("yoshida4", 16, 4), ("blanes_moan4", 2, 4)],
)
def test_integration_error_of_the_estimate_has_the_order_of_the_scheme(scheme, steps, order):
    coarse, middle, fine = (integrated(0.7, -0.6, steps * k, scheme).values[1] for k in (1, 2, 4))
    assert np.log2((coarse - middle) / (middle - fine)) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(("scheme", "steps"), [("leapfrog", 8), ("mclachlan", 2), ("yoshida4", 4), ("blanes_moan4", 2)])
@pytest.mark.parametrize(("s", "a"), [(0.9, 3.0), (0.7, -0.6), (1.0, 0.5)])
def test_reported_integration_error_bounds_the_actual_one(s, a, scheme, steps):
    """And is no more than three times it: the difference to the same estimate on trajectories that are all but exact."""
    found, exact = integrated(s, a, steps, scheme), integrated(s, a, 64)
    actual = np.abs(found.values - exact.values)
    assert (actual <= found.integration_errors).all()
    assert (found.integration_errors <= 3 * actual + 1e-7).all()
    assert abs(found.average - exact.average) <= found.average_integration_error
    assert found.converged == bool((found.integration_errors <= found.standard_errors / 4).all())


def test_steps_are_refined_until_the_integration_error_is_a_quarter_of_the_standard_error():
    """A scheme of second order needs more steps. Too stiff a force is said not to have converged."""
    fourth, second = (integrated(0.9, 3.0, None, scheme) for scheme in ("blanes_moan4", "leapfrog"))
    assert fourth.converged
    assert second.converged
    assert fourth.steps < second.steps
    assert not integrated(0.9, 3.0, second.steps // 2, "leapfrog").converged
    stiff = integrated(0.9, 1e5, None, "leapfrog")
    assert not stiff.converged
    assert stiff.steps >= MOST_STEPS
    assert (stiff.integration_errors > stiff.standard_errors / 4).any()


def test_standard_errors_of_features_hold_under_the_true_score():
    """There each product of samples in two folds stands in two gains, which the variance of the gains does not know."""
    z = []
    for seed in range(20):
        x = torch.from_numpy(np.random.default_rng(200 + seed).standard_normal((1000, 1)))
        found = hamiltonian_score_discrepancy(lambda y, t: -y, x, TIMES, estimator="features", seed=seed, features=32)
        z.append(found.values / found.standard_errors)
    assert (np.abs(z) < 3).all()
    assert -1 < np.mean(z) < 0  # a lower bound


@pytest.mark.parametrize("estimator", EVERY)
def test_average_over_the_times_is_the_integral(estimator):
    s, a = TOYS[1]
    found = toy_discrepancy(estimator, s, a)
    fine = np.linspace(0, TIMES[-1], 2001)
    mean = np.trapezoid(GaussianToy(s, a).discrepancy(fine).numpy(), fine) / TIMES[-1]
    assert abs(found.average - mean) < 2 * found.average_standard_error + 0.01 * mean  # interpolation of D/t^2


@pytest.mark.parametrize("estimator", ["binned", "neighbours"])
def test_standard_errors_of_the_unbiased_estimators_are_calibrated(estimator):
    """Under the true score, where the statistic is degenerate: z over independent runs has mean 0 and variance 1."""
    runs = [toy_discrepancy(estimator, 1.0, 1.0, seed=seed, n=1000) for seed in range(60)]
    z = np.array([run.values[1] / run.standard_errors[1] for run in runs])
    assert abs(z.mean()) < 3 / np.sqrt(len(z))
    low, high = stats.chi2.ppf([0.001, 0.999], len(z)) / len(z)
    assert low < (z**2).mean() < high


@pytest.mark.parametrize("estimator", USUALLY)
def test_right_score_has_no_discrepancy(plane, estimator):
    x = plane.sample(6000, np.random.default_rng(1))
    found = hamiltonian_score_discrepancy(lambda y, t: plane.score(y), x, TIMES, estimator=estimator, **FAST.get(estimator, {}))
    assert (np.abs(found.values) <= limit(len(TIMES)) * found.standard_errors).all()


@pytest.mark.parametrize(
    ("estimator", "slack", "options"),
    [
        ("binned", 0.0, {"bins": 1000}),
        ("neighbours", 0.0, {}),
        ("features", 0.05, {}),
        ("critic", 0.2, {"training": {"train_kimg": 76.8, "batch": 128}}),
    ],
)
def test_zero_force_gives_the_fisher_information_of_the_smoothed_data(plane, estimator, slack, options):
    """x_t = x_0 + t v_0, so that V = -t grad log p_t (Tweedie) and D = t^2 E|grad log p_t|^2; bounds may lose `slack`."""
    x = plane.sample(10_000, np.random.default_rng(2))
    found = hamiltonian_score_discrepancy(lambda y, t: 0 * y, x, TIMES, estimator=estimator, **options)
    exact, error = [], []
    for t in TIMES:
        law = plane.smoothed(t)
        fisher = law.score(law.sample(200_000, np.random.default_rng(3))).square().sum(1)
        exact.append(t**2 * float(fisher.mean()))
        error.append(t**2 * float(fisher.std()) / 200_000**0.5)
    allowed = limit(len(TIMES)) * np.hypot(found.standard_errors, error)
    assert (found.values < exact + allowed).all()
    assert (found.values > (1 - slack) * np.array(exact) - allowed).all()


def test_half_the_score_agrees_between_independent_estimators(plane):
    """No closed form: a bound by features, bins and neighbours on independent samples must tell the same."""
    force = lambda y, t: 0.5 * plane.score(y)  # noqa: E731
    found = []
    for seed, (estimator, options) in enumerate([("features", {}), ("binned", {"bins": 1000}), ("neighbours", {})]):
        x = plane.sample(10_000, np.random.default_rng(10 + seed))
        found.append(hamiltonian_score_discrepancy(force, x, TIMES, estimator=estimator, seed=seed, **options))
    for other in found[1:]:
        z = (found[0].values - other.values) / np.hypot(found[0].standard_errors, other.standard_errors)
        assert np.abs(z).max() < limit(2 * len(z))
    assert (found[0].values > 5 * found[0].standard_errors).all()


@pytest.mark.parametrize(("s", "a"), TOYS)
def test_taylor_ratio_of_the_closed_form(s, a):
    """D / (2 t^2 L_esm) = 1 - t^2 (a/3 + 1/s^2) + O(t^4)."""
    toy = GaussianToy(s, a)
    t = torch.tensor([0.02, 0.01], dtype=torch.float64)
    slope = (1 - toy.discrepancy(t) / (2 * t**2 * toy.explicit_loss)) / t**2
    richardson = (4 * slope[1] - slope[0]) / 3
    assert float(richardson) == pytest.approx(float(toy.taylor_slope), rel=1e-6)


def test_estimated_taylor_ratio_has_the_second_order_slope():
    """Antithetic pairs cancel v_0, so that the estimate resolves the ratio at small times."""
    toy = GaussianToy(1.0, 0.5)
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((40_000, 1)))
    found = hamiltonian_score_discrepancy(lambda y, t: -toy.a * y, x, (0.05, 0.1, 0.5), estimator="features", steps=20)
    second_moment = float(x.square().mean())  # of these very samples: L_esm without its sampling error
    scale = 2 * found.times**2 * float(toy.explicit_loss)
    deviation = found.values / (scale * second_moment) - (1 - found.times**2 * float(toy.taylor_slope))
    z = deviation / (found.standard_errors / scale)
    assert np.abs(z[:2]).max() < 2
    assert abs(found.values[2] / scale[2] - 1) > 5 * found.standard_errors[2] / scale[2]


def test_blind_spot_is_why_one_time_is_refused():
    """A force that is wrong by a factor four has D = 0 at w t = pi/2, and is found out by the average."""
    a = 4.0
    x = torch.from_numpy(np.random.default_rng(6).standard_normal((5000, 1)))
    force, blind = (lambda y, t: -a * y), np.pi / 2 / np.sqrt(a)
    with pytest.raises(ConfigurationError, match="blind spots"):
        hamiltonian_score_discrepancy(force, x, [blind])
    one = hamiltonian_score_discrepancy(force, x, [blind], estimator="binned", steps=100, single_time=True)
    assert abs(one.values[0]) < 3 * one.standard_errors[0]
    many = hamiltonian_score_discrepancy(force, x, np.linspace(blind / 8, blind, 8), estimator="binned", steps=40)
    assert many.average > 10 * many.average_standard_error


@pytest.mark.parametrize("times", [(0.3, 0.6), (0.1, 0.2, 0.5, 0.9)])
def test_average_weights_are_exact_where_the_ratio_is_linear(times):
    """On [t_1, T] D = t^2 (c + d t), before t_1 D = t^2 (c + d t_1)."""
    t, c, d = np.array(times), 0.7, -0.4
    first, last = t[0], t[-1]
    tail = c * (last**3 - first**3) / 3 + d * (last**4 - first**4) / 4
    exact = ((c + d * first) * first**3 / 3 + tail) / last
    assert average_weights(t) @ (t**2 * (c + d * t)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_cells_have_equal_counts(rng, dimension):
    counts = np.bincount(equal_cells(rng.standard_normal((1003, dimension)), 32))
    assert len(counts) == 32
    assert counts.max() - counts.min() <= 1


def test_critic_works_on_images_and_sees_a_wrong_force(rng):
    x = torch.from_numpy(rng.standard_normal((300, 1, 4, 4))).float()
    unet = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    options = {"critic": unet, "training": {"train_kimg": 0.8, "batch": 32, "learning_rate": 1e-2}, "steps": 4}
    wrong, right = (hamiltonian_score_discrepancy(lambda y, t, a=a: -a * y, x, (0.3, 0.6), **options) for a in (0.0, 1.0))
    assert wrong.average > 5 * wrong.average_standard_error
    assert wrong.average <= 16 * float(GaussianToy(1.0, 0.0).discrepancy(0.6))
    assert abs(right.average) <= 3 * right.average_standard_error


def test_time_dependent_force_and_global_generators(rng):
    """F = -x for t < 1/4 is the score, F = 0 after it is not: D vanishes first and grows later."""
    x = torch.from_numpy(rng.standard_normal((4000, 1)))
    before = torch.get_rng_state().clone()
    force = lambda y, t: -y if t < 0.25 - 1e-9 else 0 * y  # noqa: E731
    found = hamiltonian_score_discrepancy(force, x, (0.25, 1.0), estimator="features", steps=32)
    assert found.values[0] < 0.01 * found.values[1]
    assert torch.equal(before, torch.get_rng_state())


def test_what_cannot_be_estimated_is_refused(rng):
    x = torch.from_numpy(rng.standard_normal((100, 2)))
    calm = lambda y, t: -y  # noqa: E731
    for force, times, options, error, words in [
        (calm, (0.0, 0.5), {}, ConfigurationError, "increasing"),
        (calm, (0.5, -0.5), {}, ConfigurationError, "increasing"),
        (calm, (), {}, ConfigurationError, "increasing"),
        (calm, (0.1, 0.5), {"estimator": "bind"}, ConfigurationError, "binned"),
        (calm, (0.1, 0.5), {"estimator": "binned", "bin": 3}, ConfigurationError, "bins"),
        (calm, (0.1, 0.5), {"estimator": "critic", "training": {"train_kimg": 0}}, ConfigurationError, "train_kimg"),
        (calm, (0.1, 0.5), {"steps": 0}, ConfigurationError, "steps"),
        (lambda y, t: y[:, :1], (0.1, 0.5), {}, ConfigurationError, "shape"),
        (lambda y, t: 1e200 * y**3, (0.1, 0.5), {}, DivergenceError, "trajectories left the finite numbers"),
    ]:
        with pytest.raises(error, match=words):
            hamiltonian_score_discrepancy(force, x, times, **options)
    images = torch.zeros(10, 1, 4, 4)
    with pytest.raises(ConfigurationError, match="critic"):
        hamiltonian_score_discrepancy(calm, images, (0.1, 0.5), estimator="binned")
