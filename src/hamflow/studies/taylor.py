"""The empirical discrepancy against time, beside its Taylor prediction 2 t^2 L_esm."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hamflow.score.direct import DirectSettings, denoising, train_directly
from hamflow.score.discrepancy import hamiltonian_score_discrepancy
from hamflow.studies import base


@dataclass(frozen=True)
class Spec(base.Common):
    """Besides the common keys: sigma, training: of the denoising score matching that leaves the score
    imperfect;
    times: of the discrepancy; samples; estimators: {name: options} of `hamiltonian_score_discrepancy`; steps:
        of integration."""

    network: dict[str, Any] = field(default_factory=lambda: {"kind": "small", "width": 64, "depth": 2})
    sigma: float = 0.3
    training: dict[str, Any] = field(default_factory=lambda: {"steps": 60, "learning_rate": 3e-3})
    times: tuple[float, ...] = (0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
    samples: int = 100_000
    estimators: dict[str, Any] = field(
        default_factory=lambda: {
            "critic": {"critic": {"kind": "small", "width": 128, "depth": 3}, "critic_steps": 3000, "critic_batch": 512},
            "features": {},
        }
    )
    steps: int = 12


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Train an imperfect score, and estimate its discrepancy at every time with every estimator."""
    spec = base.read(Spec, values)
    law = spec.law()
    score = train_directly(
        spec.score_field(spec.seed), denoising(spec.sigma), law.sample, DirectSettings(**spec.training), spec.seed
    )
    x = base.samples_of_discrepancy(law, spec.samples, spec.seed)
    force = base.in_double(score)
    with torch.no_grad():  # on the very samples of the discrepancy: their sampling error is then common to both
        errors = (force(x) - law.score(x)).square().sum(1)
    curves = {}
    for name, options in spec.estimators.items():
        start = x.float() if name == "critic" else x  # a network computes in float32
        found = hamiltonian_score_discrepancy(
            force, start, spec.times, estimator=name, seed=spec.seed, steps=spec.steps, scheme="mclachlan", **options
        )
        taylor = np.square(found.times) * float(errors.mean())
        curves[name] = {
            **found.as_dict(),
            "ratio": (found.values / taylor).tolist(),
            "ratio_standard_error": (found.standard_errors / taylor).tolist(),
        }
    return {
        "kind": "taylor",
        "spec": spec.as_dict(),
        "explicit_loss": float(errors.mean()) / 2,
        "explicit_loss_standard_error": float(errors.std()) / 2 / spec.samples**0.5,
        "curves": curves,
        "n": spec.samples,
    }
