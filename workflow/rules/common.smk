# All helpers of the workflow: the checked parameters, the paths of the artefacts, and the specification of each job.
import contextlib
import functools
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import yaml

# The code of this folder, here and in the jobs, also where the environment was installed from another checkout.
CODE = str(Path("src").resolve())
sys.path.insert(0, CODE)
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [CODE, os.environ.get("PYTHONPATH")])))

from hamflow import config as parameters
from hamflow.errors import ConfigurationError, UserError
from hamflow.files import canonical_json, fingerprint

DEFAULTS = "params.yaml"

ENVIRONMENT = "../envs/hamflow.yaml"  # looked at with `--software-deployment-method conda` only

# These say how a run is told and reported; they leave no trace in a number, so that editing them repeats nothing.
WITHOUT_EFFECT = {
    f"hamflow.{name}" for name in ("cli", "config", "errors", "progress", "pipeline.provenance", "tracking")
}


def checked(config):
    """The parameters, validated; a user's mistake ends Snakemake with its paragraph and exit code 2."""
    try:
        complete = parameters.check(parameters.merge(config, typed(dict(workflow.config_settings.config))))
        refuse_changed_data(complete)
        require_settings(complete)
        return complete
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def typed(value):
    """What `--config` gave, with the types of YAML: Snakemake reads what is nested, as in `training={batch: 64}`, as text."""
    if isinstance(value, dict):
        return {key: typed(nested) for key, nested in value.items()}
    if isinstance(value, list):
        return [typed(nested) for nested in value]
    return yaml.safe_load(value) if isinstance(value, str) and value else value  # an empty text is one


def refuse_changed_data(config):
    """data/<dataset> is shared by all presets, so an overlay may add data sets but not redefine one of the defaults."""
    with open(DEFAULTS) as file:
        defaults = yaml.safe_load(file)
    for name in defaults["datasets"].keys() & config["datasets"].keys():
        for key in ("source", "options"):
            here, there = config["datasets"][name][key], defaults["datasets"][name][key]
            if here != there:
                raise ConfigurationError(
                    f"`datasets.{name}.{key}` is {here} here, but {there} in {DEFAULTS}",
                    why=f"data/{name} is shared by all presets: their results would silently be of different data",
                    fix=f"change it in {DEFAULTS}, or add an entry of another name to `datasets` and to `run.datasets`",
                )


def require_settings(config):
    if not parameters.sampler_settings(config):
        raise ConfigurationError(
            "`sampling.settings` names no sampler with a budget", fix="for example {heun: [9]}"
        )


def settle_fetched_files():
    """Where Snakemake has no records, as in a fresh clone after `dvc pull`, take the artefacts as made together, just now.

    Fetched files have arbitrary times of change, which would make some look older than their inputs. `make restore` also
    writes the records, by which later changes of parameters are noticed.
    """
    if not workflow.is_main_process or any(Path(".snakemake", "metadata").glob("*")):
        return
    now = time.time()
    for folder in (Path("data"), Path(CHECKPOINTS), Path(RESULTS)):
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # of another user, or on a read-only disk
                os.utime(path, (now, now))


def forget_kept_checkpoints():
    """Drop the links that `hamflow train --keep` made, once Snakemake itself has seen the trainings end."""
    for kept in Path(CHECKPOINTS).glob("*/*/seed*/state/*/model.safetensors"):
        shutil.rmtree(kept.parent, ignore_errors=True)
        with contextlib.suppress(OSError):  # other states lie beside it
            kept.parents[1].rmdir()


config = checked(config)

PRESET = config["preset"]
DATASETS = config["run"]["datasets"]
METHODS = config["run"]["methods"]
SEEDS = config["seeds"]
EXPERIMENTS = sorted(config["score"]["experiments"])
SETTINGS = [f"{sampler}-nfe{nfe}" for sampler, nfe in parameters.sampler_settings(config)]
LARGEST = "{}-nfe{}".format(
    *max(parameters.sampler_settings(config), key=lambda s: s[1] if s[1] != "auto" else 0)
)

CHECKPOINTS = f"checkpoints/{PRESET}"
RESULTS = f"results/{PRESET}"
LOGS = f"logs/{PRESET}"
RUN = "{dataset}/{method}/seed{seed}"  # where the artefacts of one run lie, below any of the folders above
TRACKED = bool(os.environ.get("MLFLOW_TRACKING_URI") or config["tracking"]["uri"])

settle_fetched_files()

# A GPU is asked for only where there is one: on the CPU, `resources: gpu=1` would let one job run at a time.
# `--set-resources train:gpu=1` overrides, for example where the submitting machine has none and the nodes do.
GPU = int(os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path(os.sep, "dev").glob("nvidia[0-9]*")))

# Jobs find `hamflow` beside this Python, also where the virtual environment was not activated, and stream to the store.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
)
if config["tracking"]["uri"]:
    os.environ.setdefault("MLFLOW_TRACKING_URI", config["tracking"]["uri"])
os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", config["tracking"]["experiment"])
if workflow.remote_exec and os.environ.get("MLFLOW_TRACKING_URI", "").startswith("sqlite:"):
    # SQLite's locks do not hold between nodes: `publish` fills the store afterwards.
    os.environ.pop("MLFLOW_TRACKING_URI")


wildcard_constraints:
    dataset="|".join(map(re.escape, config["datasets"])),
    method="|".join(map(re.escape, config["methods"])),
    seed=r"\d+",
    features=r"[a-z0-9_]+",
    experiment=r"[a-z]+",


def spec(kind):
    """A function of the wildcards: canonical JSON of what determines the job, as `hamflow.config` defines it."""

    def of(wildcards):
        names = [wildcards.dataset, *([wildcards.method] if "method" in wildcards.keys() else [])]
        return canonical_json(getattr(parameters, f"{kind}_spec")(config, *names))

    return of


def features_of(dataset):
    return config["datasets"][dataset]["features"]


def users_files(wildcards):
    """The fingerprint of the user's own images, by name, size and time of change: other files are prepared again."""
    path = Path(config["datasets"][wildcards.dataset]["options"].get("path") or os.devnull)
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return fingerprint(
        [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]
    )


def is_image(dataset):
    return config["networks"][config["datasets"][dataset]["network"]]["kind"] == "unet"


def training_kimg(wildcards):
    """Priority of a training: the longest first, images (whose step costs more) before points."""
    training = parameters.training_spec(config, wildcards.dataset, wildcards.method)["training"]
    return training["train_kimg"] * (1000 if is_image(wildcards.dataset) else 1)


def label_options():
    """--label for each method, as figures shall call it."""
    labels = {method: config["methods"][method]["label"] for method in METHODS}
    return " ".join(f"--label {shlex.quote(f'{method}={label}')}" for method, label in labels.items())


# --- the source files that determine a result -----------------------------------------------------------------------

REGISTERED = re.compile(r"^@(?:\w+\.)?register\(\"(\w+)\"\)", flags=re.MULTILINE)

# Read with an expression: `ast` took a quarter of a second more of every call of Snakemake (docs/performance.md).
IMPORT = re.compile(
    r"^\s*(?:from (hamflow[\w.]*) import (\([^)]*\)|.*)|import (hamflow[\w.]+))", flags=re.MULTILINE
)


def sources(*packages, using=()):
    """A function of the wildcards: the source files behind a job, for its `input`; Snakemake compares them by content.

    They are the modules of the packages and whatever of hamflow these import. A module that registers objects which the
    job does not use (another flow, another data set) is no part of it: adding a method repeats no other method.

    Args:
        packages: packages or modules of hamflow, dotted.
        using: registered names that the job uses besides those of its own parameters.
    """
    return lambda wildcards: source_files(packages, frozenset([*using, *names_used(wildcards)]))


def names_used(wildcards):
    """The registered names (source, flow, ...) that a job's parameters refer to."""
    if "dataset" not in wildcards.keys():
        return
    entry = config["datasets"][wildcards.dataset]
    yield entry["source"]
    yield entry["features"]
    if "method" in wildcards.keys():
        recipe = config["methods"][wildcards.method]
        yield from (recipe["flow"]["name"], recipe["parameterisation"], recipe["times"]["law"])
        yield config["networks"][entry["network"]]["kind"]


@functools.cache
def source_files(packages, used):
    found, queue = set(), [name for package in packages for name in modules_in(package)]
    while queue:
        name = queue.pop()
        if name in found or any(name == other or name.startswith(f"{other}.") for other in WITHOUT_EFFECT):
            continue
        _, registered, imported = module_facts(name)
        if not registered or registered & used:
            found.add(name)
            queue += imported
    return sorted(module_facts(name)[0] for name in found)


def modules_in(package):
    """The dotted names of a package's modules, or of the one module of that name."""
    root = f"hamflow.{package}"
    return [name for name in all_modules() if name == root or name.startswith(f"{root}.")]


@functools.cache
def all_modules():
    """The paths of hamflow's modules, by their dotted names."""
    paths = {
        ".".join(path.with_suffix("").parts[1:]): str(path) for path in Path("src", "hamflow").rglob("*.py")
    }
    return {name.removesuffix(".__init__"): path for name, path in sorted(paths.items())}


@functools.cache
def module_facts(module):
    """(path, names that it registers, modules of hamflow that it imports) of a dotted module name."""
    path = all_modules()[module]
    text = Path(path).read_text()
    imported = set()
    for package, names, name in IMPORT.findall(text):
        imported.update([package, name, *(f"{package}.{found}" for found in re.findall(r"\w+", names))])
    return path, frozenset(REGISTERED.findall(text)), imported & all_modules().keys() - {"hamflow"}


# --- what is to be made ---------------------------------------------------------------------------------------------


def over_runs(pattern, **more):
    """A path pattern with {dataset}, {method} and {seed}, for every run."""
    return expand(pattern, dataset=DATASETS, method=METHODS, seed=SEEDS, **more)


def all_values():
    """The measured values behind Table 1: the bounds, every run at every setting, and the discrepancies."""
    bounds = expand(f"{RESULTS}/values/{{dataset}}/data/seed0/real-nfe0.json", dataset=DATASETS)
    settings = [*SETTINGS, *(["hsd"] if config["score"]["hsd"]["sigmas"] else [])]
    return bounds + over_runs(f"{RESULTS}/values/{RUN}/{{setting}}.json", setting=settings)


def tables():
    return [
        f"{RESULTS}/tables/table1.csv",
        *([f"{RESULTS}/tables/score.csv"] if "comparison" in EXPERIMENTS else []),
    ]


def everything():
    """The targets of `rule all`."""
    return [*tables(), *figures()]


def figures():
    names = ["nfe", "training", "phase-space", "reflection", *(f"samples-{dataset}" for dataset in DATASETS)]
    names += [f"score-{experiment}" for experiment in EXPERIMENTS]
    return [f"{RESULTS}/figures/{name}.png" for name in names]
