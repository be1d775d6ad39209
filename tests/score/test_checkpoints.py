"""The discrepancy of trained checkpoints: of every method, ranked as by the exact error of the score, and after damage."""

import json

import numpy as np
import pytest
import torch
from scipy import stats

from hamflow import cli, config, data, methods
from hamflow.data.gaussian_mixture import MEANS, SDS, WEIGHTS
from hamflow.draws import generator
from hamflow.errors import CheckpointError, ConfigurationError
from hamflow.files import read_json, write_text
from hamflow.laws.mixtures import GaussianMixture
from hamflow.methods.velocity import FlowGenerator
from hamflow.score.model import ModelSpec, implied_denoiser, perturb
from hamflow.score.tournament import hold_tournament
from hamflow.verbs._training import train
from hamflow.verbs.discrepancy import evaluate_checkpoint

METHODS = ("edm", "flow_matching", "oscillation", "reflection")
SIGMA = 0.3
POINT_TRAINING = {"batch": 64, "microbatch": 64, "learning_rate": 4e-3, "warmup_kimg": 1}
IMAGE_TRAINING = {"batch": 32, "microbatch": 32, "train_kimg": 3}
KEY = f"hsd@sigma={SIGMA:g}"
POINTS = {"sigmas": [SIGMA], "times": 2, "steps": 2, "samples": 6000, "options": {"point": {"features": 64}}}
IMAGES = {
    "sigmas": [SIGMA],
    "times": 2,
    "steps": 2,
    "samples": 300,
    "options": {"image": {"estimator": "features", "features": 16}},
}


@pytest.fixture(scope="module")
def parameters():
    return config.load(
        ["params.yaml", "workflow/presets/smoke.yaml"],
        ["run.datasets=[digits, gaussian_mixture]", "run.methods=[edm, flow_matching, oscillation, reflection, stylegan2_ada]"],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, parameters):
    root = tmp_path_factory.mktemp("discrepancies")
    for name in parameters["run"]["datasets"]:
        spec = config.dataset_spec(parameters, name)
        data.prepare(spec | {"options": {"count": 8000, "seed": 0} if name == "gaussian_mixture" else {}}, root / name)
    return root


def trained(parameters, folder, dataset, method, **training):
    """The checkpoint of a short training."""
    spec = config.training_spec(parameters, dataset, method)
    spec["conditional"] = training.pop("conditional", False)
    spec["training"] = spec["training"] | training
    name = "-".join([method, *(f"{key}={value}" for key, value in training.items()), str(spec["conditional"])])
    path = folder / "runs" / dataset / name / "model.safetensors"
    return path if path.exists() else train(spec, folder / dataset, 0, path.parent, "cpu")


def discrepancy(settings, checkpoint, dataset, output):
    """(value, standard error) that the metrics of a checkpoint say."""
    evaluate_checkpoint(settings, checkpoint, dataset, output, "cpu")
    found = read_json(output)["metrics"][KEY]
    return found["value"], found["standard_error"]


def exact_error(checkpoint, perturbation=0.0):
    """sigma^2 E|s - score|^2 / 3 a coordinate: what the discrepancy is to leading order, from the exact score."""
    law, model = GaussianMixture(WEIGHTS, MEANS, SDS), methods.load(checkpoint)
    perturb(model.module, perturbation)
    rng = np.random.default_rng(0)
    y = law.sample(4000, rng) + SIGMA * torch.from_numpy(rng.standard_normal((4000, 2)))
    y = model.flow.settle(y)
    return SIGMA**2 / 6 * float((model.score(y, SIGMA) - law.smoothed(SIGMA).score(y)).square().sum(1).mean())


@pytest.mark.slow
def test_models_are_ranked_as_by_the_exact_error_of_their_score(parameters, folder, tmp_path):
    """Four methods, three lengths of training each, and one of them spoilt by three amounts: fifteen models."""
    errors, found = [], []
    for method in METHODS:
        for kimg in (2, 8, 30):
            checkpoint = trained(parameters, folder, "gaussian_mixture", method, **POINT_TRAINING, train_kimg=kimg)
            errors.append(exact_error(checkpoint))
            found.append(discrepancy(POINTS, checkpoint, folder / "gaussian_mixture", tmp_path / "hsd.json")[0])
    for amount in (0.1, 0.2, 0.4):
        errors.append(exact_error(checkpoint, amount))
        spoilt = POINTS | {"perturbation": amount}
        found.append(discrepancy(spoilt, checkpoint, folder / "gaussian_mixture", tmp_path / "hsd.json")[0])
    assert stats.spearmanr(errors, found).statistic > 0.9, list(zip(errors, found, strict=True))


def test_a_tournament_ranks_models_as_the_exact_error_of_their_score(parameters, folder):
    """Two methods, three lengths of training each, and the longest of each spoilt by several amounts: fifteen models."""
    errors, denoisers = [], {}
    for method, amounts in (("edm", (0.2, 0.4, 0.6, 0.8)), ("flow_matching", (0.3, 0.5, 0.7, 0.9, 1.1))):
        for kimg, amount in [(2, 0.0), (8, 0.0), (30, 0.0), *((30, amount) for amount in amounts)]:
            checkpoint = trained(parameters, folder, "gaussian_mixture", method, **POINT_TRAINING, train_kimg=kimg)
            errors.append(exact_error(checkpoint, amount))
            model = methods.load(checkpoint)
            perturb(model.module, amount)
            denoisers[f"{method} {kimg} {amount}"] = implied_denoiser(model)
    law = GaussianMixture(WEIGHTS, MEANS, SDS)
    found = hold_tournament(denoisers, law.sample(4000, np.random.default_rng(1)), SIGMA)
    assert len(errors) == 15
    assert stats.spearmanr(errors, found.standings[0]).statistic >= 0.98, list(zip(errors, found.standings[0], strict=True))


@pytest.mark.slow
def test_a_tournament_sees_weights_of_digits_that_are_spoilt_by_two_per_cent(parameters, folder):
    """By more than three standard errors, in the duel and in the denoising loss; 5% was the first amount that features saw."""
    training = {"batch": 64, "microbatch": 64, "train_kimg": 12, "learning_rate": 4e-3, "warmup_kimg": 1}
    checkpoint = trained(parameters, folder, "digits", "edm", **training)
    models = {amount: methods.load(checkpoint) for amount in (0.0, 0.02)}
    perturb(models[0.02].module, 0.02)
    digits = data.load(folder / "digits").batch(np.arange(1797))[0]
    denoisers = {str(amount): implied_denoiser(model) for amount, model in models.items()}
    found = hold_tournament(denoisers, digits, SIGMA, times=1)
    for table in (found.duel_differences, found.loss_differences):
        assert table.values[1, 0] > 3 * table.standard_errors[1, 0] > 0


def test_the_verb_compares_the_checkpoints_of_a_preset(parameters, folder, tmp_path, monkeypatch, capsys):
    """Reflection and the GAN imply no denoiser and stay out."""
    monkeypatch.chdir(tmp_path)
    chosen = parameters | {"metrics": {"hsd": {"sigmas": [SIGMA], "samples": 500, "times": 2, "steps": 2}}}
    write_text(tmp_path / "results/smoke/params.yaml", config.dump(chosen))
    for method in chosen["run"]["methods"]:
        checkpoint = trained(parameters, folder, "gaussian_mixture", method, **POINT_TRAINING, train_kimg=30)
        place = tmp_path / f"checkpoints/smoke/gaussian_mixture/{method}/seed0"
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(checkpoint.read_bytes())
    arguments = ["tournament", "smoke/gaussian_mixture", "--data", str(folder / "gaussian_mixture"), "--device", "cpu"]
    assert cli.main(arguments) == 0
    found = read_json(tmp_path / "results/smoke/tournaments/gaussian_mixture.json")
    assert found["samples"] == "law"
    assert found["tournaments"][0]["models"] == ["edm", "flow_matching", "oscillation"]
    assert found["tournaments"][0]["n"] == 500
    assert cli.main(["tournament", "smoke/gaussian_mixtur"]) == 2
    assert "gaussian_mixture" in capsys.readouterr().err


@pytest.mark.slow
def test_the_likelihood_of_a_trained_model_is_the_entropy_of_the_mixture(parameters, folder, tmp_path):
    """The default network: within .05 bits a dimension of the exact -log p of the same data, and above it."""
    asked, found = POINTS | {"sigmas": [], "likelihood": {"samples": 400, "steps": 15}}, {}
    whole = config.load(["params.yaml"])
    for method, chosen, kimg in (("oscillation", whole, 250), ("reflection", parameters, 1)):
        checkpoint = trained(chosen, folder, "gaussian_mixture", method, train_kimg=kimg)
        evaluate_checkpoint(asked, checkpoint, folder / "gaussian_mixture", tmp_path / "hsd.json", "cpu")
        found[method] = read_json(tmp_path / "hsd.json")["metrics"]
    assert found["reflection"] == {}
    row, law = found["oscillation"]["data_nll"], GaussianMixture(WEIGHTS, MEANS, SDS)
    data_of_row = law.sample(400, generator(0, "likelihood", "rows"))
    entropy = -float(law.log_prob(data_of_row).mean())
    assert (row["n"], row["features"]) == (400, "law")
    assert -0.01 < (row["value"] - entropy) / (2 * np.log(2)) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_points_of_spoilt_weights_have_a_significantly_larger_discrepancy(parameters, folder, tmp_path, method):
    checkpoint = trained(parameters, folder, "gaussian_mixture", method, **POINT_TRAINING, train_kimg=30)
    values = [
        discrepancy(POINTS | {"perturbation": size}, checkpoint, folder / "gaussian_mixture", tmp_path / f"{size}.json")
        for size in (0.0, 1.0)
    ]
    (good, error), (spoilt, other) = values
    assert spoilt - good > 5 * np.hypot(error, other), values


@pytest.mark.parametrize(("method", "conditional"), [("edm", True), ("reflection", False)])
def test_images_of_spoilt_weights_have_a_significantly_larger_discrepancy(parameters, folder, tmp_path, method, conditional):
    checkpoint = trained(parameters, folder, "digits", method, **IMAGE_TRAINING, conditional=conditional)
    values = [
        discrepancy(IMAGES | {"perturbation": size}, checkpoint, folder / "digits", tmp_path / f"{size}.json")
        for size in (0.0, 1.0)
    ]
    (good, error), (spoilt, other) = values
    assert spoilt - good > 5 * np.hypot(error, other), values


def test_a_conditional_model_is_asked_with_the_labels_of_the_data(parameters, folder, tmp_path, monkeypatch):
    checkpoint = trained(parameters, folder, "digits", "edm", **IMAGE_TRAINING, conditional=True)
    asked = []
    score = FlowGenerator.score

    def listen(model, y, sigma, label=None):
        asked.append(label)
        return score(model, y, sigma, label)

    monkeypatch.setattr(FlowGenerator, "score", listen)
    discrepancy(IMAGES, checkpoint, folder / "digits", tmp_path / "hsd.json")
    assert all(label is not None and set(label.tolist()) == set(range(10)) for label in asked[1:])  # the first asks for a score


def test_the_same_perturbation_is_the_same_model(parameters, folder):
    checkpoint = trained(parameters, folder, "digits", "edm", **IMAGE_TRAINING, conditional=True)
    networks = [methods.load(checkpoint).module for _ in range(4)]
    for network, (size, seed) in zip(networks, [(0.0, 0), (0.1, 0), (0.1, 0), (0.1, 1)], strict=True):
        perturb(network, size, seed)
    whole, one, again, other = (torch.cat([p.flatten() for p in network.parameters()]) for network in networks)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    rms = torch.cat([p.square().mean().sqrt().expand(p.numel()) for p in networks[0].parameters()])
    assert float(((one - whole) / rms.clamp(min=1e-12))[rms > 0].std()) == pytest.approx(0.1, rel=0.05)


def test_command_line_takes_a_specification_and_names_a_misspelt_key(parameters, folder, tmp_path, capsys):
    checkpoint = trained(parameters, folder, "gaussian_mixture", "edm", **POINT_TRAINING, train_kimg=30)
    files = [
        "--checkpoint",
        str(checkpoint),
        "--data",
        str(folder / "gaussian_mixture"),
        "--output",
        str(tmp_path / "hsd.json"),
    ]
    for spec, code in (({"sigmas": [SIGMA], "samples": 500, "perturbation": 0.1}, 0), ({"perturbaton": 0.1}, 2)):
        assert cli.main(["discrepancy", "--spec", json.dumps(spec), *files, "--device", "cpu"]) == code
    assert "perturbation" in capsys.readouterr().err
    assert read_json(tmp_path / "hsd.json")["metrics"][KEY]["n"] == 500


def test_the_checkpoint_of_another_data_set_or_method_is_refused(parameters, folder, tmp_path):
    checkpoint = trained(parameters, folder, "gaussian_mixture", "edm", **POINT_TRAINING, train_kimg=30)
    for about, dataset in (
        ({"method": "reflection"}, "gaussian_mixture"),
        ({"dataset": "digits"}, "gaussian_mixture"),
        ({}, "digits"),
    ):
        with pytest.raises(CheckpointError, match=r"(was )?trained (with|on other)"):
            discrepancy({"about": about}, checkpoint, folder / dataset, tmp_path / "hsd.json")


def test_an_option_that_is_no_estimator_s_is_refused(parameters, folder, tmp_path):
    checkpoint = trained(parameters, folder, "gaussian_mixture", "edm", **POINT_TRAINING, train_kimg=30)
    settings = POINTS | {"options": {"point": {"steps": 3}}}
    with pytest.raises(ConfigurationError, match="`steps`, which is no estimator's"):
        discrepancy(settings, checkpoint, folder / "gaussian_mixture", tmp_path / "hsd.json")


def test_a_size_that_is_no_size_is_refused(parameters, folder):
    network = methods.load(trained(parameters, folder, "digits", "edm", **IMAGE_TRAINING, conditional=True)).module
    with pytest.raises(ConfigurationError, match="perturbation"):
        perturb(network, -0.1)
    assert ModelSpec().perturbation == 0
