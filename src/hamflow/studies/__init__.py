"""The experiments on a mixture with known score: each a function of a plain specification that returns plain
values."""

import importlib

KINDS = {
    "mixture": "Hamiltonian score matching on a mixture: density, learned score, learned velocity predictor",
    "scatter": "explicit score matching loss against the discrepancy, for many networks trained for one epoch",
    "taylor": "empirical discrepancy against time, with its Taylor prediction 2 t^2 L_esm",
    "gradients": "mean against standard deviation of the parameter gradient, Hamiltonian against denoising",
    "comparison": "denoising, implicit, sliced and Hamiltonian score matching at equal time and at equal steps",
}


def run(kind: str, spec: dict) -> dict:
    """The result of an experiment: plain values, a function of its full specification, which is under `spec`; but for
    `training`, where there is one: how long that took."""
    return importlib.import_module(f"hamflow.studies.{kind}").run(spec)
