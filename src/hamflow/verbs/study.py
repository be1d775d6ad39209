"""an experiment that is no row of Table 1, by its name: mixture, scatter, taylor, gradients, comparison, phase_space, ..."""

import argparse
import time
from pathlib import Path

from hamflow import config
from hamflow.pipeline.paths import STATE, circumstances_of
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/STUDY", spec=True)
    arguments.add_paths(parser, output="the result, a .json")


def run(options: argparse.Namespace) -> None:
    from hamflow import studies
    from hamflow.files import fingerprint, write_json
    from hamflow.pipeline.provenance import circumstances, origin
    from hamflow.pipeline.sources import of_this_package
    from hamflow.runtime import configure, describe_device

    preset, name = arguments.part_of(options, "PRESET/STUDY")
    output: Path = options.output or preset.study(name)
    if options.spec is not None:
        spec = config.parse_spec(options.spec)
    else:
        spec = config.study_spec(arguments.parameters(options, preset), name)
    configure("cpu")  # networks of a few thousand weights: a GPU would only wait
    with arguments.making(options, preset, lambda jobs, _: jobs.study(name)):
        began = time.perf_counter()
        code = fingerprint(of_this_package().code("verbs.study", f"studies.{name}"))  # others do not go on from it
        result = studies.run(name, spec, output.parent / STATE / f"{name}-{code[:16]}")
        took = {"training": result.pop("training", {}), "wall_seconds": time.perf_counter() - began}
        write_json(circumstances_of(output), circumstances(**took))
        write_json(output, {**result, "provenance": origin(device=describe_device("cpu"))})
    print(f"{output} written", flush=True)
