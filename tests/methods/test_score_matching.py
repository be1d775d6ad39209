"""Score matching without a critic learns the score that its objective is for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from hamflow.errors import ConfigurationError, NotOffered
from hamflow.methods.base import METHODS, Facts, Generator
from hamflow.score.model import metrics_of
from hamflow.training.fit import Samples, fitted
from hamflow.training.plan import Training

FACTS = Facts(
    name="line", shape=(1,), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network={"kind": "small", "width": 32, "depth": 1}
)
PLAN = Training(train_kimg=60, batch=256, learning_rate=1e-2, betas=(0.9, 0.999), ema_halflife_kimg=10)
S = 0.8
X = torch.linspace(-1.5, 1.5, 31)[:, None]


class Points(Samples):
    kind = "point"


@pytest.mark.parametrize(
    ("options", "variance", "sigma"),
    [
        ({"loss": "denoising", "sigma": 0.5}, S**2 + 0.5**2, 0.5),
        ({"loss": "implicit"}, S**2, 0.0),
        ({"loss": "hutchinson"}, S**2, 0.0),
        ({"loss": "sliced"}, S**2, 0.0),
    ],
    ids=lambda value: value["loss"] if isinstance(value, dict) else "",
)
def test_gaussian_data_have_a_linear_score(options, variance, sigma):
    """-x / s^2, and -x / (s^2 + sigma^2) of the smoothed data."""
    method = METHODS.build("score_matching", **options)
    data = S * torch.from_numpy(np.random.default_rng(0).standard_normal((PLAN.steps * PLAN.batch, 1))).float()
    generator = method.generator(fitted(method.objective(FACTS, {}, 0), Samples(data), PLAN, 0))
    with torch.no_grad():
        error = generator.score(X, sigma) + X / variance
    assert float(error.abs().max()) < 0.15
    with pytest.raises(NotOffered, match="learned at noise level"):
        generator.score(X, sigma + 0.1)


def test_it_is_a_generator_that_does_not_sample():
    method = METHODS.build("score_matching")
    generator = method.generator(method.objective(FACTS, {}, 0))
    assert isinstance(generator, Generator)
    with pytest.raises(NotOffered, match="no sampler"):
        generator.sample(range(2), "heun", 5)


@pytest.mark.parametrize(
    ("options", "words"), [({"loss": "denoisin"}, "denoising"), ({"sigma": 0.0}, "sigma"), ({"sigm": 0.1}, "sigma")]
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=f"(?s){words}"):
        METHODS.build("score_matching", **options)


def test_conditional_scores_are_refused():
    with pytest.raises(ConfigurationError, match="line.conditional"):
        METHODS.build("score_matching").objective(replace(FACTS, classes=2), {}, 0)


def test_the_discrepancy_is_of_the_noise_level_that_was_learned():
    """Of other levels, and of a method without a score, there is none, and so no row of a table."""
    method = METHODS.build("score_matching", sigma=0.5)
    generator = method.generator(method.objective(FACTS, {}, 0))
    settings = {"sigmas": [0.1, 0.5], "times": 2, "samples": 200, "options": {"point": {"features": 8}}}
    dataset = Points(torch.from_numpy(np.random.default_rng(0).standard_normal((200, 1))).float())
    assert metrics_of(settings, generator, dataset, "cpu").keys() == {"hsd@sigma=0.5"}
    assert metrics_of(settings, SimpleNamespace(module=generator.module), dataset, "cpu") == {}
