"""whether every file of a preset is what its parameters, code and data ask for now; nothing is made or changed"""

import argparse

from hamflow.errors import DataError
from hamflow.pipeline import targets
from hamflow.pipeline.jobs import Job, Jobs
from hamflow.pipeline.made import Checks
from hamflow.verbs import arguments, plot

MOST_NAMED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET")


def run(options: argparse.Namespace) -> None:
    preset = arguments.preset_of(options)
    jobs = Jobs(arguments.asked(options, preset))
    checks, found = Checks(jobs.memo), everything(jobs)
    there = [job for job in found if any(path.exists() for path in job.outputs)]
    differ = {job: differs for job in there if (differs := checks.difference(job))}
    print(f"{preset.name}: {len(found)} jobs; the files of {len(there)} are here, and {len(differ)} differ", flush=True)
    if differ:
        lines = [f"{job}: {differs}" for job, differs in list(differ.items())[:MOST_NAMED]]
        raise DataError(
            f"{len(differ)} of {len(there)} are not what is asked for now:\n  " + "\n  ".join(lines),
            why="a number would stand under parameters, code or data that did not make it",
            fix="start the workflow, which makes them again, or check out the commit whose results they are",
        )


def everything(jobs: Jobs) -> list[Job]:
    """Every job of a preset, each after those that it follows from."""
    ordered: dict[object, Job] = {}

    def add(job: Job) -> None:
        if job.stamp not in ordered:
            for parent in job.parents:
                add(parent)
            ordered[job.stamp] = job

    for last in [jobs.tabulate(), *(plot.job(jobs, name) for name in plot.names(jobs.parameters))]:
        add(last)
    for table in targets.study_tables(jobs.parameters):
        add(jobs.tabulate_study(table))
    for table in targets.model_tables(jobs.parameters):
        add(jobs.tabulate_models(table))
    return list(ordered.values())
