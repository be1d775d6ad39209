# The names that the rules share. What they mean is in src/hamflow/pipeline: paths, targets, sources and workflow.
import os
import re
import shlex
import sys
from pathlib import Path

# The code of this folder, here and in the jobs, also where the environment was installed from another checkout.
CODE = str(Path("src").resolve())
sys.path.insert(0, CODE)
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [CODE, os.environ.get("PYTHONPATH")])))

from hamflow import config as parameters
from hamflow.files import canonical_json
from hamflow.pipeline import paths, targets, workflow as pipeline
from hamflow.pipeline.sources import Sources, names_in
from hamflow.verbs import plot as figures

ENVIRONMENT = "../envs/hamflow.yaml"  # looked at with `--software-deployment-method conda` only

config = pipeline.checked(workflow.config_settings.configfiles, dict(workflow.config_settings.config))

PRESET = paths.Preset(config["preset"])
RUN = PRESET.run("{dataset}", "{method}", "{seed}")
DATASETS = config["run"]["datasets"]
MODULES = Sources()
TRACKED = pipeline.set_environment(config["tracking"], workflow.remote_exec)

if workflow.is_main_process:
    pipeline.settle_fetched_files([paths.DATA, PRESET.checkpoints, PRESET.results])
if not workflow.is_main_process or "--no-hooks" in sys.argv:  # else `onstart` does it
    pipeline.write_parameters(config, PRESET)

# A GPU is asked for only where there is one: on the CPU, `resources: gpu=1` would let one job run at a time.
# `--set-resources train:gpu=1` overrides, for example where the submitting machine has none and the nodes do.
GPU = int(os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path(os.sep, "dev").glob("nvidia[0-9]*")))


wildcard_constraints:
    dataset="|".join(map(re.escape, config["datasets"])),
    method="|".join(map(re.escape, config["methods"])),
    seed=r"\d+",
    study="|".join(targets.studies(config)) or "none",
    figure=r"[a-z0-9_-]+",


def job(verb, place="", preset=PRESET.name):
    """The command of a job; its log has what it prints."""
    place = re.sub(r"\{(\w+)\}", r"{wildcards.\1}", "/".join(filter(None, [preset, str(place)])))
    return (
        f"OMP_NUM_THREADS={{threads}} {{params.at[0]}}hamflow {verb} {place}{{params.at[1]}} > {{log}} 2>&1"
    )


def at(wildcards, output):
    """Where nodes share no file system: the folder of the copies of a job's files, and the parameters in this one."""
    return pipeline.place_of_copies(str(output[0]), PRESET)


def spec(kind):
    """A function of the wildcards: canonical JSON of what determines the job. Another one repeats it; no command line has it."""
    return lambda wildcards: canonical_json(
        getattr(parameters, f"{kind}_spec")(config, *wildcards_of(wildcards))
    )


def sources(*modules, without=()):
    """A function of the wildcards: the source files behind modules, for the `input`; Snakemake compares them by content."""
    return lambda w: MODULES.behind(
        *(module.format(**w) for module in modules), used=names_used(w), without=without
    )


def wildcards_of(wildcards):
    return [wildcards[key] for key in ("dataset", "method", "study") if key in wildcards.keys()]


def names_used(wildcards):
    """The names that the parameters of a job hold: the objects of a registry that it may use."""
    entries = [config["datasets"][wildcards.dataset]] if "dataset" in wildcards.keys() else []
    if "method" in wildcards.keys():
        entries.append(parameters.training_spec(config, wildcards.dataset, wildcards.method))
    return frozenset(names_in(entries))


def features_of(dataset):
    return config["datasets"][dataset]["features"]
