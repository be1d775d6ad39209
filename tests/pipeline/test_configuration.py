"""Overlays, and the paragraph that a mistake in them gets."""

import json
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from hamflow import config
from hamflow.sampling import budget

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))
PARAMETER_FILES = [ROOT / "params.yaml", *PRESETS]

MISTAKES = {
    "top-level key": ("sed=[1]", "unknown key `sed`", "'seeds'"),
    "nested key": ("training={learning_rat: 1}", "unknown key `training.learning_rat`", "'learning_rate'"),
    "type": ("training={batch: many}", "`training.batch`", "params.yaml"),
    "data set": ("run={datasets: [digit]}", "'digit'", "'digits'"),
    "method": ("run={methods: [oscilation]}", "'oscilation'", "'oscillation'"),
    "shared data": ("datasets={rings: {options: {count: 7}}}", "`datasets.rings.options`", "add an entry"),
    "no setting": ("sampling={settings: {heun: [], multistep: []}}", "`sampling.settings`", "heun"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_paragraph_and_code_2(fresh, mistake):
    overlay, what, fix = MISTAKES[mistake]
    done = fresh.snakemake("--dry-run", "--config", overlay, check=False)
    paragraph = done.stdout[done.stdout.index("ConfigurationError") :]
    assert done.returncode == 2
    assert what in paragraph.splitlines()[0]
    assert fix in paragraph[paragraph.index("Fix:") :]
    assert "Traceback" not in done.stdout


def test_an_impossible_nfe_names_the_nearest_possible(fresh):
    nfe = 10
    done = fresh.snakemake("--dry-run", "--config", f"sampling={{settings: {{heun: [{nfe}]}}}}", check=False)
    slope, offset = budget.nfe_of("heun", 2) - budget.nfe_of("heun", 1), budget.nfe_of("heun", 0)
    nearest = [slope * ((nfe - offset) // slope + up) + offset for up in (0, 1)]
    assert done.returncode == 2
    assert "use " + " or ".join(map(str, nearest)) in done.stdout


@pytest.mark.parametrize("path", PARAMETER_FILES, ids=lambda p: p.name)
def test_the_yaml_dialects_of_snakemake_and_dvc_agree(path):
    text = path.read_text()
    assert json.dumps(yaml.safe_load(text)) == json.dumps(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.name)
def test_a_preset_is_named_after_its_file_and_leaves_the_shared_data_alone(path):
    default, preset = config.load([ROOT / "params.yaml"]), config.load([ROOT / "params.yaml", path])
    assert preset["preset"] == path.stem
    for name in default["datasets"]:
        assert config.dataset_spec(preset, name) == config.dataset_spec(default, name)


def test_overlays_by_file_and_by_hand_resolve_alike(fresh):
    """By --configfile, by --config, and by --set of the job's own command line: the same parameters for the job."""
    (fresh.folder / "overlay.yaml").write_text("training: {batch: 96}\nseeds: [3]\n")
    target = ("--cores", "1", "data/rings/dataset.json")
    expected = config.load([ROOT / "params.yaml"], ["training.batch=96", "seeds=[3]"])
    for overlay in (["--configfile", "overlay.yaml"], ["--config", "training={batch: 96}", "seeds=[3]"]):
        written = fresh.folder / "results/quickstart/params.yaml"
        written.unlink(missing_ok=True)
        fresh.snakemake("--dry-run", *target, *overlay)
        fresh.snakemake("--lint", *overlay)
        assert not written.exists()
        (fresh.folder / "data/rings/dataset.json").unlink(missing_ok=True)
        fresh.snakemake(*target, *overlay, "tracking={uri: ''}" if "--config" in overlay else "--quiet")
        assert config.load([written]) | {"tracking": 0} == expected | {"tracking": 0}
