"""The table of costs: what is counted, and that the page shows it."""

import sys
from pathlib import Path

import pytest

from hamflow import config
from hamflow.methods.base import METHODS, Facts

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cost():
    sys.path.insert(0, str(ROOT / "tools"))
    import cost as module

    yield module
    sys.path.remove(str(ROOT / "tools"))
    del sys.modules["cost"]


def test_operations_are_twice_the_multiply_adds_of_the_layers(cost):
    """A network of one resolution without attention: of each convolution k^2 in out H W, of each linear layer in out."""
    from hamflow import networks

    spec = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
    size, operations = cost.counted(spec, (1, 8, 8), 0)
    network = networks.build(spec, (1, 8, 8))
    assert size == sum(weight.numel() for weight in network.parameters())
    adds = sum(w.numel() * (64 if w.dim() == 4 else 1) for w in network.parameters() if w.dim() in (2, 4))
    attention = 2 * 64 * 64 * 8  # of the middle: scores, and their sums of values
    assert operations == pytest.approx(2 * (adds + attention), rel=0.02)


@pytest.mark.parametrize("preset", ["paper", "cpu32"])
def test_the_page_has_the_rows_of_the_tool(cost, preset):
    page = (ROOT / "docs/cost.md").read_text()
    parameters = config.load([ROOT / "params.yaml", ROOT / f"workflow/presets/{preset}.yaml"])
    first = next(iter(cost.rows(parameters, 2e14)))
    assert "| " + " | ".join([preset, *first]) + " |" in page
    for dataset in parameters["run"]["datasets"]:
        fields = [m for m in config.methods_of(parameters, dataset) if parameters["methods"][m]["kind"] == "velocity"]
        assert all(f"| {preset} | {dataset} | {method} |" in page for method in fields)


def test_the_paper_s_networks_have_the_published_settings(cost):
    """The rows of Table 1 as their authors trained them: the sizes of their networks."""
    parameters = config.load([ROOT / "params.yaml", ROOT / "workflow/presets/paper.yaml"])
    sizes = {
        method: cost.counted(config.training_spec(parameters, "cifar10", method)["network"], (3, 32, 32), 0)[0]
        for method in ("ve_sde", "vp_sde")
    }
    assert sizes == {"ve_sde": 62758787, "vp_sde": 61804419}  # configuration A of Karras et al. 2022, table 7


def test_the_paper_s_gan_has_the_published_sizes_and_rates():
    """G and D of configuration cifar; rates and betas corrected for penalties every k steps, c = k / (k + 1): 16 and 4."""
    entry = config.load([ROOT / "params.yaml", ROOT / "workflow/presets/paper.yaml"])["methods"]["stylegan2_ada"]
    facts = Facts(name="cifar10", shape=(3, 32, 32), classes=0, sigma_data=0.5, box=(-1.0, 1.0), network={})
    objective = METHODS.build("gan", **config.options_of(entry)).objective(facts, {}, 0)
    sizes = [
        sum(weight.numel() for weight in network.parameters()) for network in (objective.generator, objective.discriminator)
    ]
    assert sizes == [19_947_539, 20_720_641]
    training = entry["training"]
    for name, c in (("discriminator", 16 / 17), ("generator", 4 / 5)):
        player = training["players"][name]
        assert player["learning_rate"] == pytest.approx(c * training["learning_rate"], rel=1e-6)
        assert player["betas"] == pytest.approx([0.0, 0.99**c], abs=1e-6)


def test_the_fields_of_the_paper_that_augment_have_the_published_sizes(cost):
    parameters = config.load([ROOT / "params.yaml", ROOT / "workflow/presets/paper.yaml"])
    sizes = {}
    for dataset, shape, classes in (
        ("cifar10", (3, 32, 32), 0),
        ("cifar10_conditional", (3, 32, 32), 10),
        ("ffhq64", (3, 64, 64), 0),
    ):
        sizes[dataset] = cost.counted(config.training_spec(parameters, dataset, "edm")["network"], shape, classes)[0]
    assert sizes == {"cifar10": 56_397_827, "cifar10_conditional": 55_735_299, "ffhq64": 61_805_571}
