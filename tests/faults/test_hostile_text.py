"""Texts of the parameters that reach a shell: a label, the store, the experiment, the path of a data set's images."""

import io
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("faults")]

ATTACKS = [
    "x'; touch FIRED; echo '",
    'x"; touch FIRED; echo "',
    "$(touch FIRED)",
    "`touch FIRED`",
    "x | touch FIRED & touch FIRED",
    "--output FIRED",
]


def overlay(tree, **entries):
    path = tree.folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(entries))
    return ["--configfile", path.name]


def fired(tree):
    return [path for path in tree.folder.rglob("FIRED*")]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [" ".join(ATTACKS)])
def test_no_label_store_or_experiment_runs_a_command(tree, attack):
    """All attacks in one text, in every place where a free text may stand."""
    tracking = {"uri": f"sqlite:///{attack}/mlflow.db", "experiment": attack}
    options = overlay(
        tree, methods={"reflection": {"label": attack}}, datasets={"checkerboard": {"label": attack}}, tracking=tracking
    )
    figure, samples = (f"results/quickstart/figures/{name}.png" for name in ("training", "samples-checkerboard"))
    tree.snakemake("--cores", "2", *options, "--", figure, samples)
    assert (tree.folder / figure).exists()
    assert fired(tree) == []


@pytest.fixture
def pictures(tree):
    """An archive of images whose name is an attack."""
    path = tree.folder / f"{ATTACKS[0].replace('/', '')} $(touch FIRED).zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(4):
            file = io.BytesIO()
            Image.fromarray(np.random.default_rng(index).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(file, "PNG")
            archive.writestr(f"{index}.png", file.getvalue())
    return path


def test_an_archive_of_any_name_is_prepared_by_the_workflow(tree, pictures):
    entry = {"label": "x", "source": "images", "conditional": False, "network": "unet", "features": "efficientnet_lite0"}
    entry |= {"n_samples": 3, "training": {}, "options": {"path": pictures.name, "resolution": 8}}
    tree.snakemake("--cores", "1", *overlay(tree, datasets={"pictures": entry}), "--", "data/pictures/dataset.json")
    assert np.load(tree.folder / "data/pictures/images.npy").shape == (4, 8, 8, 3)
    assert fired(tree) == []
