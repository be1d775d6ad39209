"""Overlays, and the paragraph that a mistake in them gets."""

import json
import re
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML
from snakemake.cli import parse_config

from hamflow import config
from hamflow.errors import ConfigurationError

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))
PARAMETER_FILES = [ROOT / "params.yaml", *PRESETS]

# (what `--config` gave, what the first line of the paragraph names, what its fix says)
MISTAKES = {
    "top-level key": ("sed=[1]", "unknown key `sed`", "'seeds'"),
    "nested key": ("training={learning_rat: 1}", "unknown key `training.learning_rat`", "'learning_rate'"),
    "type": ("training={batch: many}", "`training.batch` = 'many'", "params.yaml"),
    "range": ("training={batch: 0}", "`training.batch` = 0: Expected int >= 1", "params.yaml"),
    "a float for an integer": ("training={batch: 64.0}", "`training.batch` = 64.0: Expected int", "params.yaml"),
    "data set": ("run={datasets: [digit]}", "'digit'", "'digits'"),
    "method": ("run={methods: [oscilation]}", "'oscilation'", "'oscillation'"),
    "shared data": ("datasets={rings: {options: {count: 7}}}", "`datasets.rings.options`", "give it another name"),
    "no setting": ("sampling={settings: {heun: [], multistep: []}}", "`sampling.settings`", "heun"),
    "flow": ("methods={edm: {flow: {name: difusion}}}", "`methods.edm.flow.name`: unknown flow 'difusion'", "'diffusion'"),
    "option of a flow": ("methods={edm: {flow: {horizn: 3}}}", "unknown key `methods.edm.flow.horizn`", "'horizon'"),
    "value of a flow": (
        "methods={edm: {flow: {horizon: -3}}}",
        "`methods.edm.flow.horizon` = -3: Expected float > 0",
        "params.yaml",
    ),
    "parameterisation": ("methods={edm: {parameterisation: emd}}", "`methods.edm.parameterisation`: unknown", "'edm'"),
    "law of times": ("methods={edm: {times: {law: log_norml}}}", "`methods.edm.times.law`: unknown time law", "'log_normal'"),
    "option of a law": ("methods={edm: {times: {mena: 1}}}", "unknown key `methods.edm.times.mena`", "'mean'"),
    "option of another law": (
        "methods={reflection: {times: {law: uniform}}}",
        "unknown key `methods.reflection.times.decades`",
        "no options",
    ),
    "kind of method": ("methods={edm: {kind: velocty}}", "`methods.edm.kind`: unknown kind of method", "'velocity'"),
    "key of a method": (
        "methods={edm: {paramterisation: edm}}",
        "unknown key `methods.edm.paramterisation`",
        "'parameterisation'",
    ),
    "common key of a method": ("methods={edm: {grd: edm}}", "unknown key `methods.edm.grd`", "'grid'"),
    "critic of a method": (
        "methods={hsm: {label: HSM, kind: hsm, critic: {kind: mpl}}}",
        "`methods.hsm.critic.kind`: unknown network 'mpl'",
        "'mlp'",
    ),
    "parent": ("methods={edm: {parents: {vae: edmm}}}", "'edmm' is not in `methods`", "'edm'"),
    "method called data": ("methods={data: {label: x}}", "no method may be called `data`", ""),
    "grid": ("methods={edm: {grid: edmm}}", "`methods.edm.grid` = 'edmm'", "'edm'"),
    "edm on another flow": (
        "methods={oscillation: {parameterisation: edm}}",
        "'edm' belongs to flows 'diffusion' and 'pfgm'",
        "velocity",
    ),
    "source": ("datasets={digits: {source: digts}}", "`datasets.digits.source`: unknown data source 'digts'", "'digits'"),
    "option of a source": ("datasets={rings: {options: {cout: 5}}}", "unknown key `datasets.rings.options.cout`", "'count'"),
    "holdout": (
        "datasets={digits: {options: {holdout: 1}}}",
        "`datasets.digits.options.holdout` = 1: Expected float < 1",
        "params.yaml",
    ),
    "features of points for images": (
        "datasets={digits: {features: points}}",
        "`datasets.digits.features` = 'points'",
        "efficientnet_lite0",
    ),
    "features of images for points": (
        "datasets={rings: {features: efficientnet_lite0}}",
        "does not fit data of points",
        "points",
    ),
    "features": ("datasets={digits: {features: eficientnet_lite0}}", "`datasets.digits.features`", "'efficientnet_lite0'"),
    "classes of points": ("datasets={rings: {conditional: true}}", "`datasets.rings.conditional`", "false"),
    "network": ("datasets={digits: {network: unett}}", "'unett' is not in `networks`", "'unet'"),
    "network of points": ("datasets={digits: {network: mlp}}", "takes samples of 1 dimensions", "unet"),
    "kind of network": ("networks={mlp: {kind: mpl}}", "`networks.mlp.kind`: unknown network", "'mlp'"),
    "option of a network": ("networks={mlp: {widht: 8}}", "unknown key `networks.mlp.widht`", "'width'"),
    "halving": ("networks={unet: {multipliers: [1, 1, 1, 1, 1]}}", "images of 8x8 cannot be halved 4 times", "multipliers"),
    "attention": ("networks={unet: {attention: [5]}}", "attention at 5 pixels, but the resolutions are [8, 4]", "attention"),
    "sampler": ("sampling={settings: {huen: [5]}}", "unknown sampler 'huen'", "'heun'"),
    "sampler of a method": ("methods={edm: {samplers: {huen: [5]}}}", "`methods.edm.samplers`: unknown sampler", "'heun'"),
    "budget": ("sampling={settings: {heun: [10]}}", "got nfe = 10", "use 9 or 11"),
    "key of the discrepancy": ("metrics={hsd: {sigma: [1]}}", "unknown key `metrics.hsd.sigma`", "'sigmas'"),
    "key of an estimator": (
        "metrics={hsd: {options: {image: {estimatr: critic}}}}",
        "unknown key `metrics.hsd.options.image.estimatr`",
        "'estimator'",
    ),
    "estimator": ("metrics={hsd: {options: {image: {estimator: critc}}}}", "unknown estimator 'critc'", "'critic'"),
    "kind of data": ("metrics={hsd: {options: {images: {}}}}", "= 'images'", "'image'"),
    "metric": ("metrics={hds: {}}", "unknown key `metrics.hds`", "'hsd'"),
    "study": ("studies={mixtur: {}}", "`studies.mixtur`", "'mixture'"),
    "key of a study": ("studies={mixture: {hamiltonan: 3}}", "hamiltonan", "'hamiltonian'"),
    "a path that is not there": (
        "datasets={pictures: {label: x, source: images, options: {path: nowhere.zip, resolution: 8}, network: unet,"
        " features: efficientnet_lite0, n_samples: 8}} run={datasets: [pictures]}",
        "`datasets.pictures.options.path` = 'nowhere.zip'",
        "working directory",
    ),
    "resolution that cannot be halved": (
        "datasets={pictures: {label: x, source: images, options: {path: src, resolution: 9}, network: unet,"
        " features: efficientnet_lite0, n_samples: 8}}",
        "images of 9x9 cannot be halved 1 times",
        "multipliers",
    ),
    "key of images": (
        "datasets={pictures: {label: x, source: images, options: {path: src, resolution: 8, filtre: box}, network: unet,"
        " features: efficientnet_lite0, n_samples: 8}}",
        "unknown key `datasets.pictures.options.filtre`",
        "'filter'",
    ),
}
BY_THE_WORKFLOW = ("shared data", "a path that is not there")  # which looks at the disk, too
THROUGH_SNAKEMAKE = ("nested key", "flow", "law of times", "features of points for images", "key of a study", *BY_THE_WORKFLOW)


def words(overlay):
    return re.split(r"(?<=}) (?=run=)", overlay)


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name not in BY_THE_WORKFLOW])
def test_a_mistake_is_refused_before_any_job(mistake):
    """By the function that the workflow calls, with what Snakemake makes of `--config`."""
    overlay, what, fix = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as caught:
        config.resolve([ROOT / "params.yaml"], parse_config(words(overlay)))
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize("mistake", THROUGH_SNAKEMAKE)
def test_a_mistake_ends_with_one_paragraph_and_code_2(fresh, mistake):
    overlay, what, fix = MISTAKES[mistake]
    done = fresh.snakemake("--dry-run", "--config", *words(overlay), check=False)
    paragraph = done.stdout[done.stdout.index("ConfigurationError") :]
    assert done.returncode == 2
    assert what in paragraph.splitlines()[0]
    assert fix in paragraph[paragraph.index("Fix:") :]
    assert "Traceback" not in done.stdout


def test_labels_as_latex_users_write_them_reach_every_rule(fresh):
    (fresh.folder / "braces.yaml").write_text(yaml.safe_dump({"methods": {"edm": {"label": r"EDM, $\sigma_{max}$ = 20"}}}))
    assert fresh.pending("--configfile", "braces.yaml")


def test_an_override_that_an_entry_beats_is_told(fresh):
    text = fresh.snakemake("--dry-run", "--quiet", "--config", "training={batch: 64}").stdout
    assert "`training.batch` does not reach rings, which has `datasets.rings.training.batch` = 256" in text
    assert "digits" not in text[text.index("Note:") :].partition("\n")[0]


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


@pytest.mark.slow
def test_overlays_by_file_and_by_hand_resolve_alike(fresh):
    """By --configfile, by --config, and by --set of the job's own command line: the same parameters for the job."""
    (fresh.folder / "overlay.yaml").write_text("training: {batch: 96}\nseeds: [3]\n")
    target = ("--cores", "1", "data/rings/dataset.json")
    expected = config.load([ROOT / "params.yaml"], ["training.batch=96", "seeds=[3]"])
    for overlay in (["--configfile", "overlay.yaml"], ["--config", "training={batch: 96}", "seeds=[3]"]):
        written = fresh.folder / "results/quickstart/params.yaml"
        written.unlink(missing_ok=True)
        fresh.snakemake("--dry-run", *target, *overlay)
        if "--config" in overlay:
            fresh.snakemake("--lint", *overlay)
        assert not written.exists()
        (fresh.folder / "data/rings/dataset.json").unlink(missing_ok=True)
        fresh.snakemake(*target, *overlay, "tracking={uri: ''}" if "--config" in overlay else "--quiet")
        assert config.load([written]) | {"tracking": 0} == expected | {"tracking": 0}
