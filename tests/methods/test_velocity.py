"""Velocity regression: statistics of the data within the objective, and the metric of its loss."""

import copy
import math

import pytest
import torch

from hamflow.draws import BatchDraws
from hamflow.errors import CheckpointError
from hamflow.files import save_tensors
from hamflow.methods import load
from hamflow.methods.base import METHODS, Facts
from hamflow.training.fit import Batch, Samples, fitted
from hamflow.training.plan import Training

FACTS = Facts(
    name="line", shape=(3,), classes=0, sigma_data=0.8, box=(-9, 9), network={"kind": "small", "width": 8, "depth": 1}
)
WHITE = {
    "flow": {"name": "oscillation", "alpha": "auto"},
    "parameterisation": "velocity",
    "times": {"law": "log_normal", "mean": -1.2, "std": 1.2},
}
COLOURED = WHITE | {"flow": {"name": "oscillation_coloured", "colour": 0.4, "alpha": "auto"}}
PLAN = Training(train_kimg=0.064, batch=16, microbatch=16)


@pytest.fixture(scope="module")
def rows():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    return Samples(x @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 0.3]]))


def objective(options, rows):
    made = METHODS.build("velocity", **options).objective(FACTS, {}, 0)
    made.begin(rows)
    return made


def losses(made, rows):
    draw = BatchDraws(0, batch=64)
    return made.losses("velocity", Batch(rows.x, None, 0, draw, made))


@pytest.mark.parametrize("options", [WHITE, COLOURED, WHITE | {"flow": {"name": "diffusion"}, "parameterisation": "edm"}])
def test_the_metric_of_the_loss_is_a_power_of_the_covariance(options, rows):
    """r' S^-m r at unit mean weight, of the residual r that the plain loss squares."""
    made, plain = objective(options | {"loss_metric": 0.7}, rows), objective(options, rows)
    found = losses(made, rows)
    kept = []
    plain._root_of_metric = lambda residual: kept.append(residual) or residual
    weight = losses(plain, rows) / kept[0].square().mean(1)
    centred = (rows.x - rows.x.mean(0)).double()
    covariance = centred.T @ centred / 64
    covariance += 0.01 * covariance.trace() / 3 * torch.eye(3)
    values, vectors = torch.linalg.eigh(covariance)
    metric = vectors @ torch.diag(values**-0.7 / (values**-0.7).mean()) @ vectors.T
    expected = weight * ((kept[0].double() @ metric) * kept[0]).mean(1)
    torch.testing.assert_close(found, expected.to(found), rtol=1e-4, atol=1e-5)


def test_a_metric_that_is_not_set_leaves_no_trace(rows):
    unset, nought = objective(WHITE, rows), objective(WHITE | {"loss_metric": 0.0}, rows)
    assert torch.equal(losses(unset, rows), losses(nought, rows))
    assert not [name for name in unset.state_dict() if "network" not in name]


def test_colour_is_trained_published_and_read_with_its_statistics(rows, tmp_path):
    averaged = fitted(METHODS.build("velocity", **COLOURED).objective(FACTS, {}, 0), rows, PLAN, 0)
    spec = {"dataset": "line", "method": "coloured", "kind": "velocity", "options": COLOURED}
    metadata = {"spec": spec, "facts": FACTS.as_dict(), "data_sha256": "0"}
    tensors = averaged.state_dict()
    save_tensors(tmp_path / "good.safetensors", tensors, metadata)
    again = load(tmp_path / "good.safetensors")
    direct = METHODS.build("velocity", **COLOURED).generator(averaged)
    assert torch.equal(again.sample(range(7), "heun", 5)[0], direct.sample(range(7), "heun", 5)[0])

    spectrum, x = "field.flow.covariance.spectrum", rows.x.double()
    assert float(tensors[spectrum].mean()) == pytest.approx(1.01 * float((x - x.mean(0)).square().mean()), rel=1e-9)
    for value in (-1.0, math.nan):
        bad = copy.deepcopy(tensors)
        bad[spectrum][0] = value
        save_tensors(tmp_path / "bad.safetensors", bad, metadata)
        with pytest.raises(CheckpointError, match="covariance of the data is not positive"):
            load(tmp_path / "bad.safetensors")
    smaller = FACTS.as_dict() | {"shape": [2]}
    save_tensors(tmp_path / "other.safetensors", tensors, metadata | {"facts": smaller})
    with pytest.raises(CheckpointError, match="described as"):
        load(tmp_path / "other.safetensors")
