"""What a card has is on the CPU, too: the same code in bfloat16, fused, compiled, from resident rows."""

import functools

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import nn

from hamflow import config, data
from hamflow.data.dataset import Resident
from hamflow.errors import ConfigurationError
from hamflow.files import load_tensors
from hamflow.methods.base import METHODS, Facts
from hamflow.registry import convert
from hamflow.tracking import read_jsonl
from hamflow.training import speed, utilisation
from hamflow.training.fit import Samples, fit
from hamflow.training.plan import Snapshots, Speed, Training
from hamflow.training.state import State
from hamflow.verbs._training import train

NETWORK = {"kind": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
FACTS = Facts(name="grey", shape=(1, 8, 8), classes=0, sigma_data=0.5, box=(-1.0, 1.0), network=NETWORK)
SMALL = {"kind": "small", "width": 32, "depth": 2}
POINTS = Facts(name="plane", shape=(2,), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network=SMALL)
METHOD = {"flow": {"name": "oscillation"}, "parameterisation": "velocity", "times": {"law": "uniform"}}
PLAN = Training(train_kimg=0.064, batch=16, learning_rate=2e-3, report_kimg=0.032, ema_halflife_kimg=0.02)
DATA = Samples(torch.from_numpy(np.random.default_rng(0).standard_normal((64, 1, 8, 8))).float().clamp(-1, 1))


def objective():
    return METHODS.build("velocity", **METHOD).objective(FACTS, {}, 0)


def trained(plan, rows=DATA):
    state = State(objective(), plan)
    list(fit(state.objective, rows, plan, 0, state))
    return state


def test_bfloat16_is_of_the_products_alone():
    """Weights, moments, average and loss are float32; the loss is that of float32 to the 8 bits of a product."""
    plain, mixed = trained(PLAN), trained(replace(PLAN, speed=Speed(precision="bfloat16")))
    assert {tensor.dtype for tensor in mixed.tensors().values() if tensor.is_floating_point()} == {torch.float32}
    for before, now in zip(plain.history, mixed.history, strict=True):
        assert now["loss"] == pytest.approx(before["loss"], rel=2**-7)
        assert now["loss"] != before["loss"]


def test_the_products_are_in_bfloat16_and_the_norms_are_not_summed_in_it():
    """In a norm of values about 256, where bfloat16 has steps of 2, the mean of many is still exact to a step."""
    seen = []
    made = objective()
    convolution = next(m for m in made.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    speed.prepare(made, State(made, PLAN), Speed(precision="bfloat16"), torch.device("cpu"))
    with made.reduced():
        made.field(torch.zeros(2, 1, 8, 8), 0.5)
        x = (256 + torch.arange(0, 64) % 7 * 2.0).bfloat16().view(1, 8, 8, 1)
        norm = nn.GroupNorm(1, 8)
        torch.testing.assert_close(norm(x).float(), norm(x.float()), rtol=2**-7, atol=2**-7)
    assert seen == [torch.bfloat16]


def test_the_matrix_of_a_loss_stays_in_the_precision_of_the_weights():
    """`loss_metric` is a product outside of the network: bfloat16 there would spoil the loss itself."""
    made = METHODS.build("velocity", **METHOD, loss_metric=0.5).objective(FACTS, {}, 0)
    seen = []
    apply = made.metric.apply_power
    made.metric.apply_power = lambda residual, power: (
        seen.append((residual.dtype, torch.is_autocast_enabled("cpu"))) or apply(residual, power)
    )
    plan = replace(PLAN, train_kimg=0.016, speed=Speed(precision="bfloat16"))
    list(fit(made, DATA, plan, 0, State(made, plan)))
    assert seen == [(torch.float32, False)]


WAYS = [{"precision": "bfloat16"}, {"fused": True}, {"channels_last": False}, {"fused": True, "precision": "bfloat16"}]


@pytest.mark.parametrize("ways", [Speed(**ways) for ways in WAYS])
def test_a_break_changes_no_bit_in_any_of_the_ways(ways):
    plan = replace(PLAN, speed=ways, snapshots=Snapshots(kimg=0.016))
    whole = trained(plan)
    first = State(objective(), plan)
    steps = fit(first.objective, DATA, plan, 0, first)
    for _ in range(2):
        next(steps)
    second = State(objective(), plan)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()}, first.progress())
    list(fit(second.objective, DATA, plan, 0, second))
    expected = whole.tensors()
    assert second.tensors().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.tensors().items())


@pytest.mark.parametrize("ways", [Speed(fused=True), Speed(channels_last=False)])
def test_other_ways_change_nothing_but_rounding(ways):
    plain, other = trained(PLAN).tensors(), trained(replace(PLAN, speed=ways)).tensors()
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-4)


def test_fused_is_the_way_of_a_card_and_of_those_who_ask():
    weights = list(nn.Linear(2, 2).parameters())
    assert State(objective(), PLAN).optimisers["field"].param_groups[0]["foreach"]
    asked = State(objective(), replace(PLAN, speed=Speed(fused=True))).optimisers["field"]
    assert asked.param_groups[0]["fused"]
    assert all(weight.device.type == "cpu" for weight in weights)


@pytest.mark.slow
def test_a_compiled_network_is_the_same_and_its_average_is_not_compiled(monkeypatch):
    """Traced as a compiler sees it, and run by torch: without the minute that generating code takes."""
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    state = trained(replace(PLAN, speed=Speed(compile=True)))
    assert state.objective.field.network._compiled_call_impl is not None
    assert state.averaged.field.network._compiled_call_impl is None
    for name, tensor in trained(PLAN).tensors().items():
        torch.testing.assert_close(state.tensors()[name], tensor, rtol=0, atol=1e-5)


def test_a_method_of_second_derivatives_takes_neither():
    hsm = METHODS.build("hsm").objective(POINTS, {}, 0)
    for ways, key in ((Speed(compile=True), "compile"), (Speed(precision="bfloat16"), "precision")):
        plan = replace(PLAN, speed=ways)
        with pytest.raises(ConfigurationError, match=f"training.speed.{key}"):
            next(fit(hsm, Samples(torch.randn(16, 2)), plan, 0, State(hsm, plan)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    data.prepare({"name": "digits", "source": "digits", "options": {}}, folder)
    return data.load(folder)


def test_resident_rows_are_the_same_bits(digits):
    device = torch.device("cpu")
    rows = speed.placed(digits, device, Speed(resident=True))
    assert isinstance(rows, Resident)
    assert rows.rows.dtype == torch.uint8
    assert rows.count == digits.count
    chosen = np.random.default_rng(0).permutation(digits.count)
    for found, expected in zip(rows.batch(chosen), digits.batch(chosen), strict=True):
        assert torch.equal(found, expected)
        assert found.is_contiguous() == expected.is_contiguous()
    assert speed.placed(digits, device, None) is digits
    assert digits.stored_bytes == rows.rows.numel() + 8 * rows.count


@pytest.mark.parametrize(("free", "resident"), [(1000, False), (10**7, True)])
def test_on_a_card_rows_are_resident_where_they_fit(digits, monkeypatch, free, resident):
    class Card:
        type = "cuda"

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, free))
    monkeypatch.setattr(type(digits), "resident", lambda self, device: "there")
    assert speed.placed(digits, Card(), None) == ("there" if resident else digits)
    assert speed.placed(digits, Card(), Speed(resident=False)) is digits


def test_operations_are_those_of_the_layers_three_times():
    """One convolution and one linear layer of an MLP: forward once, backward twice, but the first layer's input needs none."""
    made = METHODS.build("velocity", **METHOD).objective(POINTS, {}, 0)
    sizes = [m.in_features * m.out_features for m in made.modules() if isinstance(m, nn.Linear)]
    whole, unneeded = 3 * 2 * sum(sizes), 2 * max(sizes)
    found = utilisation.operations(made, Samples(torch.randn(16, 2)), PLAN) / PLAN.batch
    assert whole - unneeded <= found <= whole
    again = replace(PLAN, batch=2 * PLAN.batch)
    assert utilisation.operations(made, Samples(torch.randn(16, 2)), again) == pytest.approx(2 * found * PLAN.batch)


def test_counting_operations_moves_nothing():
    made = objective()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    rng = torch.get_rng_state()
    assert utilisation.operations(made, DATA, PLAN) > 0
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_the_peak_is_that_of_the_card_and_absent_for_others():
    assert utilisation.peak("cpu") is None
    assert utilisation.peak_of("NVIDIA GeForce GTX 1080") is None
    sxm, pcie = utilisation.peak_of("NVIDIA H100 80GB HBM3"), utilisation.peak_of("NVIDIA H100 PCIe")
    assert sxm > pcie > utilisation.peak_of("NVIDIA A100-SXM4-80GB")
    assert utilisation.peak_of("NVIDIA L40S") > utilisation.peak_of("NVIDIA L40") > utilisation.peak_of("NVIDIA L4")


def test_reports_say_what_the_machine_did(digits, monkeypatch, tmp_path, tiny_config):
    """Memory always; the share of the peak where the card is known: operations a step, times steps a second, by the peak."""
    spec = config.training_spec(tiny_config, "digits", "edm")
    spec["training"] |= {"train_kimg": 0.256, "batch": 64, "report_kimg": 0.128}
    train(spec, digits.folder, 0, tmp_path / "unknown", "cpu")
    unknown = read_jsonl(tmp_path / "unknown" / "train.jsonl")
    assert all(line["memory_gib"] > 0 and "mfu" not in line for line in unknown)
    monkeypatch.setattr(utilisation, "peak", lambda _device: 1e9)
    train(spec, digits.folder, 0, tmp_path / "known", "cpu")
    made = METHODS.build(spec["kind"], **spec["options"]).objective(Facts.of(spec, digits), {}, 0)
    plan = convert(Training, spec["training"], "training")
    per_image = utilisation.operations(made, digits, plan) / plan.batch
    for line in read_jsonl(tmp_path / "known" / "train.jsonl"):
        assert line["mfu"] == pytest.approx(per_image * line["images_per_second"] / 1e9, rel=1e-2)
    checkpoints = [load_tensors(tmp_path / name / "model.safetensors") for name in ("unknown", "known")]
    assert checkpoints[0][1]["history"] == checkpoints[1][1]["history"]  # nothing that was measured is published
