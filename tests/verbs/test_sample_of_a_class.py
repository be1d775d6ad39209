"""`hamflow sample` with classes asked for, with guidance, and what it refuses."""

import numpy as np
import pytest

from hamflow import cli
from hamflow.files import read_json

PARAMS = ["--params", "params.yaml", "--params", "workflow/presets/smoke.yaml"]
SMALL = ["training.train_kimg=0.128", "sampling.settings={heun: [3], multistep: []}", "datasets.digits.n_samples=12"]
CONDITIONAL = ["datasets.digits.conditional=true", "methods.oscillation.label_dropping=0.3"]


def settings(*values):
    return [word for value in values for word in ("--set", value)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared):
    """The arguments of `sample` for a model without classes, and for one that sometimes was not told its class."""
    root, found = tmp_path_factory.mktemp("classes"), {}
    for name, given in (("unconditional", ()), ("conditional", CONDITIONAL)):
        job = ["smoke/digits/oscillation/seed0", *PARAMS, "--data", str(prepared / "digits"), "--device", "cpu"]
        job += settings(*SMALL, *given)
        assert cli.main(["train", *job, "--output", str(root / name)]) == 0
        found[name] = ["sample", *job, "--checkpoint", str(root / name / "model.safetensors")]
    return found


def refused(capsys, arguments, *fragments):
    capsys.readouterr()
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert [fragment for fragment in fragments if fragment not in printed] == []


def drawn(trained, output, *more):
    assert cli.main([*trained["conditional"], *more, "--output", str(output)]) == 0
    return output


def test_a_class_asked_for_is_told_to_the_model_and_written_down(trained, tmp_path):
    """Row i depends on seed and class alone: the rows of class 3 are the same whether 5 is asked for beside it or not."""
    alone = drawn(trained, tmp_path / "3", "--label", "3")
    both = drawn(trained, tmp_path / "35", "--label", "3", "--label", "5")
    none = drawn(trained, tmp_path / "none", "--label", "-1")
    rows = [np.load(folder / "heun-nfe3.npy") for folder in (alone, both, none)]
    assert np.abs(rows[0][::2].astype(int) - rows[1][::2]).max() <= 1
    assert not np.array_equal(rows[0][1::2], rows[1][1::2])
    assert not np.array_equal(rows[0], rows[2])
    assert [read_json(folder / "heun-nfe3.json")["label"] for folder in (alone, both, none)] == [[3], [3, 5], [-1]]
    assert "label" not in read_json(drawn(trained, tmp_path / "all") / "heun-nfe3.json")


def test_guided_samples_say_so(trained, tmp_path):
    budget = ["methods.oscillation.guidance=2", "methods.oscillation.samplers={heun: [6]}", "run.datasets=[digits]"]
    budget += ["run.methods=[oscillation]"]
    folder = drawn(trained, tmp_path, *settings(*budget))
    facts = read_json(folder / "heun-nfe6.json")
    assert (facts["nfe"], facts["guidance"]) == (6, 2.0)
    assert np.load(folder / "heun-nfe6.npy").shape == (12, 8, 8, 1)


def test_what_cannot_be_drawn(trained, capsys, tmp_path):
    output = ["--output", str(tmp_path / "x")]
    refused(capsys, [*trained["conditional"], *output, "--label", "10"], "class 10 is asked for", "0 to 9")
    refused(capsys, [*trained["unconditional"], *output, "--label", "1"], "trained without classes", "conditional: true")
    refused(capsys, [*trained["conditional"], "--label", "1"], "--label needs --output")
    guided = settings("methods.oscillation.guidance=2", "methods.oscillation.samplers={heun: [6]}")
    guided += settings("methods.oscillation.label_dropping=0.3", "datasets.digits.conditional=true", "run.datasets=[digits]")
    refused(capsys, [*trained["unconditional"], *output, *guided], "guidance 2 is asked for", "without classes")
    assert not (tmp_path / "x").exists()
