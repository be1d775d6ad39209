"""a figure of a preset, as .png and .pdf: nfe, training, samples-DATASET, study-STUDY"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hamflow.errors import ConfigurationError, nearest
from hamflow.pipeline.jobs import Job, Jobs
from hamflow.report import figures
from hamflow.report.figures import Figure
from hamflow.studies import figure as study
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/FIGURE")
    arguments.add_paths(parser, output="the .png; a .pdf beside it")


def run(options: argparse.Namespace) -> None:
    preset, name = arguments.part_of(options, "PRESET/FIGURE")
    parameters = arguments.parameters(options, preset)
    with arguments.making(options, preset, lambda jobs, _: job(jobs, name)):
        _kind(parameters, name).draw(parameters, name, options.output or preset.figure(name))


def job(jobs: Jobs, name: str) -> Job:
    """The job of a figure."""
    parameters = jobs.parameters
    return jobs.plot(name, inputs(parameters, name), caption(parameters, name), modules(name))


def names(parameters: Mapping[str, Any]) -> list[str]:
    """The figures that a preset has."""
    return sorted(_kinds(parameters))


def inputs(parameters: Mapping[str, Any], name: str) -> dict[str, list[Path] | Path]:
    """The artefacts that a figure shows."""
    return _kind(parameters, name).inputs(parameters, name)


def caption(parameters: Mapping[str, Any], name: str) -> str:
    """What stands below a figure in the report, reStructuredText."""
    return _kind(parameters, name).caption(parameters, name)


def modules(name: str) -> list[str]:
    """The modules behind a figure, below hamflow."""
    kind, _, of = name.partition("-")
    return ["verbs.plot", f"studies.{of}" if name.startswith(study.PREFIX) else f"report.figures.{kind}"]


def _kinds(parameters: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: kind for kind in [*figures.kinds(), study] for name in kind.names(parameters)}


def _kind(parameters: Mapping[str, Any], name: str) -> Figure:
    kinds = _kinds(parameters)
    if name not in kinds:
        raise ConfigurationError(f"preset '{parameters['preset']}' has no figure '{name}'", fix=nearest(name, kinds))
    return kinds[name]
