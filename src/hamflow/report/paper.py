"""Table 1 of Holderrieth, Xu, Jaakkola 2024 (arXiv:2410.20470): FID / NFE, complete.

The authors quote the baselines' figures; those of Oscillation HGF are their own. FID there is Inception-v3 on
50,000 samples against the training set, as in EDM (Karras et al. 2022).
"""

from typing import NamedTuple

from hamflow.pipeline.paths import BOUND

METRIC = "fid"

LABELS = {  # rows of the table, in its order; those of ours that it has not stand beside their nearest kin
    "stylegan2_ada": "StyleGAN2-ADA",
    "lsgm": "LSGM",
    "pfgm": "PFGM",
    "ve_sde": "VE-SDE",
    "vp_sde": "VP-SDE",
    "edm": "EDM",
    "flow_matching": "Flow matching (CondOT)",
    "fm_bns": "FM-OT (BNS)",
    "oscillation": "Oscillation HGF",
    "reflection": "Reflection HGF",
}
BOUND_LABEL = "real data (bound)"

COLUMNS = {
    ("cifar10", False): "CIFAR-10",
    ("cifar10", True): "CIFAR-10, conditional",
    ("ffhq64", False): "FFHQ 64x64",
}


class Figure(NamedTuple):
    """A published FID and what it cost, in network evaluations an image."""

    fid: float
    nfe: int


TABLE: dict[tuple[str, bool], dict[str, Figure]] = {
    ("cifar10", False): {
        "stylegan2_ada": Figure(2.92, 1),
        "lsgm": Figure(2.10, 147),
        "pfgm": Figure(2.48, 104),
        "ve_sde": Figure(3.77, 35),
        "vp_sde": Figure(3.01, 35),
        "edm": Figure(1.98, 35),
        "fm_bns": Figure(2.73, 8),  # as printed; 2.73 at 10 NFE is Bespoke's figure, an earlier solver's (arXiv:2310.19075)
        "oscillation": Figure(2.12, 35),
    },
    ("cifar10", True): {
        "ve_sde": Figure(3.11, 35),
        "vp_sde": Figure(2.48, 35),
        "edm": Figure(1.79, 35),
        "oscillation": Figure(1.97, 35),
    },
    ("ffhq64", False): {
        "ve_sde": Figure(25.95, 79),
        "vp_sde": Figure(3.39, 79),
        "edm": Figure(2.39, 79),
        "oscillation": Figure(2.86, 79),
    },
}


def published(dataset: str, conditional: bool, method: str, nfe: float, metric: str) -> float | None:
    """The paper's figure for exactly that data set, method, NFE and metric; None where it has none."""
    column = TABLE.get((dataset.removesuffix("_conditional"), conditional), {})
    figure = column.get(method)
    return figure.fid if figure is not None and metric == METRIC and nfe == figure.nfe else None


def order(method: str) -> tuple[int, str]:
    """A sorting key: the paper's order, then unknown methods by name, then the bound."""
    known = list(LABELS)
    place = known.index(method) if method in LABELS else len(known) + (method == BOUND)
    return place, method
