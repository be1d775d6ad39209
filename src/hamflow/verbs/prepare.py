"""write a data set as arrays with a manifest"""

import argparse

from hamflow import config
from hamflow.pipeline.paths import DATA
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/DATASET", spec=True)
    arguments.add_paths(parser, output="folder of the data set")


def run(options: argparse.Namespace) -> None:
    from hamflow import data

    place = arguments.run_of(options)
    spec = arguments.specification(options, place, lambda c, r: config.dataset_spec(c, r.dataset))
    with arguments.making(options, place, lambda jobs, run: jobs.prepare(run.dataset)):
        data.prepare(spec, options.output or DATA / spec["name"])
