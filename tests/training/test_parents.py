"""A training that starts from another one: it has that one's weights, is told apart by them, and loads without them."""

import json

import pytest
import torch
from torch import nn

from hamflow import cli, config, data, load
from hamflow.errors import CheckpointError, ConfigurationError
from hamflow.files import load_metadata, sha256_of
from hamflow.methods.base import METHODS
from hamflow.registry import Options
from hamflow.training.fit import Objective, Turn
from hamflow.verbs._training import train


class Follower(Objective):
    """Learns a constant multiple of its teacher's velocity; the teacher stays as it is."""

    turns = (Turn("follow", "student"),)

    def __init__(self, teacher):
        super().__init__()
        self.student, self.teacher = nn.Linear(1, 1, bias=False), teacher.module

    def losses(self, turn, batch):
        t = torch.full((len(batch.x),), 0.3)
        return (self.student.weight * batch.x - self.teacher(batch.x, t)).square().flatten(1).mean(1)


class Followed:
    sampling, metadata = None, None

    def __init__(self, averaged):
        self.module, self.shape, self.classes = averaged, (2,), 0


class Following(Options, kw_only=True, frozen=True):
    def objective(self, data, parents, seed):
        return Follower(parents["teacher"])

    def generator(self, averaged):
        return Followed(averaged)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    METHODS.names()  # finds the others first
    monkeypatch.setitem(METHODS._entries, "following", Following)


@pytest.fixture(scope="module")
def teachers(prepared, tiny_config, tmp_path_factory):
    """Two checkpoints of one method, by their seeds."""
    spec, folder = config.training_spec(tiny_config, "checkerboard", "edm"), tmp_path_factory.mktemp("teachers")
    return [train(spec, prepared / "checkerboard", seed, folder / str(seed), "cpu") for seed in (0, 1)]


@pytest.fixture
def spec(tiny_config):
    spec = config.training_spec(tiny_config, "checkerboard", "edm")
    return spec | {"method": "following", "kind": "following", "options": {}, "parents": {"teacher": "edm"}}


def test_it_has_the_weights_of_its_parent_and_needs_the_parent_no_more(spec, prepared, teachers, tmp_path):
    path = train(spec, prepared / "checkerboard", 0, tmp_path / "follower", "cpu", parents={"teacher": teachers[0]})
    kept, teacher = load(path).module.teacher.state_dict(), load(teachers[0]).module.state_dict()
    assert kept.keys() == teacher.keys()
    assert all(torch.equal(kept[name], teacher[name]) for name in kept)
    assert load_metadata(path)["parents"]["teacher"]["sha256"] == sha256_of(teachers[0])


def test_another_parent_is_another_training(spec, prepared, teachers, tmp_path):
    """So that no state of the one is gone on with by the other."""
    folders = set()
    for teacher in teachers:
        train(spec, prepared / "checkerboard", 0, tmp_path / "same", "cpu", keep=True, parents={"teacher": teacher})
        folders |= set((tmp_path / "same" / "state").iterdir())
    assert len(folders) == 2


def test_a_parent_that_is_not_given_or_not_what_the_method_starts_from_is_refused(spec, prepared, teachers, tmp_path):
    with pytest.raises(ConfigurationError, match="the checkpoint of `teacher` is not given"):
        train(spec, prepared / "checkerboard", 0, tmp_path, "cpu")
    other = spec | {"parents": {"teacher": "reflection"}}
    with pytest.raises(CheckpointError, match="was trained with method 'edm'"):
        train(other, prepared / "checkerboard", 0, tmp_path, "cpu", parents={"teacher": teachers[0]})


@pytest.mark.parametrize("given", ["student=x", "teacher"])
def test_a_role_that_does_not_exist_is_refused_by_the_command(spec, prepared, tmp_path, capsys, given):
    words = [
        "train",
        "--spec",
        json.dumps(spec),
        "--data",
        str(prepared / "checkerboard"),
        "--output",
        str(tmp_path),
        "--parent",
        given,
    ]
    assert cli.main(words) == 2
    assert "teacher=PATH" in capsys.readouterr().err


def test_methods_that_start_from_each_other_are_refused():
    overrides = ["methods.edm.parents={a: reflection}", "methods.reflection.parents={a: edm}"]
    with pytest.raises(ConfigurationError, match="in a circle: .*edm -> "):
        config.load(["params.yaml"], overrides)


def test_a_latent_model_names_its_autoencoder():
    with pytest.raises(ConfigurationError, match="`methods.x.parents` names no `vae`.*'lsgm' starts from"):
        config.load(["params.yaml"], ["methods.x={label: x, kind: lsgm}"])
    with pytest.raises(ConfigurationError, match="`methods.x.parents.vae` = 'edm' is a method of kind 'velocity', not 'vae'"):
        config.load(["params.yaml"], ["methods.x={label: x, kind: lsgm, parents: {vae: edm}}"])


def test_an_autoencoder_of_other_data_is_refused(tiny_config, prepared, tmp_path):
    spec = config.training_spec(tiny_config, "digits", "edm")
    spec["training"] |= {"train_kimg": 0.064}
    first = spec | {"kind": "vae", "options": {"channels": 4}}
    path = train(first, prepared / "digits", 0, tmp_path / "vae", "cpu")
    data.prepare({"name": "digits", "source": "digits", "options": {"holdout": 0.5}}, tmp_path / "digits")
    joint = spec | {"kind": "lsgm", "options": {}, "parents": {"vae": "edm"}}
    with pytest.raises(CheckpointError, match="was trained on other data than those in"):
        train(joint, tmp_path / "digits", 0, tmp_path / "joint", "cpu", parents={"vae": path})
