# The names that the rules share. What they mean is in src/hamflow/pipeline: paths, targets, sources and workflow.
import atexit
import functools
import os
import re
import shlex
import sys
from pathlib import Path

# The code of this workflow's own folder, here and in the jobs, also where the environment was installed from another checkout.
CODE = str(Path(workflow.basedir, "src").resolve())
if os.pathsep in CODE:
    sys.exit(
        f"{CODE} has a colon in it, at which PYTHONPATH ends: its jobs would run other code. Fix: rename the folder."
    )
sys.path.insert(0, CODE)
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [CODE, os.environ.get("PYTHONPATH")])))

from hamflow.errors import UserError
from hamflow.pipeline import made, paths, targets, workflow as pipeline
from hamflow.pipeline.jobs import Jobs
from hamflow.verbs import plot as figures, tabulate as model_tables

ENVIRONMENT = "../envs/hamflow.yaml"  # looked at with `--software-deployment-method conda` only

config = pipeline.checked(
    [PARAMETERS, *workflow.config_settings.configfiles], dict(workflow.config_settings.config)
)

PRESET = paths.Preset(config["preset"])
RUN = PRESET.run("{dataset}", "{method}", "{seed}")
DATASETS = config["run"]["datasets"]
JOBS = Jobs(config)
TRACKED = pipeline.set_environment(config["tracking"], workflow.remote_exec)

if not workflow.is_main_process or (
    "--no-hooks" in sys.argv and not workflow.dryrun
):  # else `onstart` does it
    pipeline.write_parameters(config, PRESET)

# A GPU is asked for only where there is one: on the CPU, `resources: gpu=1` would let one job run at a time.
# `--set-resources train:gpu=1` overrides, for example where the submitting machine has none and the nodes do.
GPU = int(os.environ.get("CUDA_VISIBLE_DEVICES") != "" and any(Path(os.sep, "dev").glob("nvidia[0-9]*")))


wildcard_constraints:
    dataset="|".join(map(re.escape, config["datasets"])),
    method="|".join(map(re.escape, config["methods"])),
    seed=r"\d+",
    study="|".join(targets.studies(config)) or "none",
    table="|".join(targets.STUDY_TABLES),
    models="|".join(targets.MODEL_TABLES),
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


@functools.cache
def checks():
    """What decides by the stamps of the jobs; None in a job, which is asked for, and where only Snakemake can read the results.

    Snakemake's own records do not count beside them. They do in a storage that only it reads: its records of the recipes.
    """
    if not workflow.is_main_process or workflow.storage_settings.default_storage_provider is not None:
        return None
    pipeline.let_stamps_decide(workflow)
    if not workflow.dryrun:
        atexit.register(JOBS.memo.save)
    return made.Checks(JOBS.memo, pipeline.forced(workflow.dag_settings.forcerun))


def made_of(kind):
    """A function of the wildcards: what a job reads. A job is forced whose files lie there but are not what is asked for."""

    def inputs(wildcards):
        job = job_of(kind, wildcards)
        files = {**job.inputs, "stamps": [parent.stamp for parent in job.parents]}
        try:
            if (stamps := checks()) and stamps.verdict(job).due:
                workflow.dag.forcefiles.update(map(str, job.outputs))
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        return files

    return inputs


def recipe(kind):
    """A function of the wildcards: a digest of all that determines a job. Snakemake records it."""
    return lambda wildcards: job_of(kind, wildcards).recipe


def job_of(kind, wildcards):
    if kind == "plot":
        return figures.job(JOBS, wildcards.figure)
    known = [
        wildcards[key] for key in ("dataset", "method", "study", "table", "models") if key in wildcards.keys()
    ]
    return getattr(JOBS, kind)(*known, *([int(wildcards.seed)] if "seed" in wildcards.keys() else []))


def features_of(dataset):
    return config["datasets"][dataset]["features"]
