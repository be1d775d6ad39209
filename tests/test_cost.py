"""The table of costs: what is counted, and that the page shows it."""

import sys
from pathlib import Path

import pytest

from hamflow import config

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
        assert all(f"| {preset} | {dataset} | {method} |" in page for method in parameters["run"]["methods"])


def test_the_paper_s_networks_have_the_published_settings(cost):
    """The rows of Table 1 as their authors trained them: the sizes of their networks."""
    parameters = config.load([ROOT / "params.yaml", ROOT / "workflow/presets/paper.yaml"])
    sizes = {
        method: cost.counted(config.training_spec(parameters, "cifar10", method)["network"], (3, 32, 32), 0)[0]
        for method in ("ve_sde", "vp_sde")
    }
    assert sizes == {"ve_sde": 62758787, "vp_sde": 61804419}  # configuration A of Karras et al. 2022, table 7
