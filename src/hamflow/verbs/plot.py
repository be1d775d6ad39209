"""a figure of a preset, as .png and .pdf: nfe, training, samples-DATASET, study-STUDY"""

import argparse

from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET/FIGURE")
    arguments.add_paths(parser, output="the .png; a .pdf beside it")


def run(options: argparse.Namespace) -> None:
    from hamflow.report import drawing

    preset, name = arguments.part_of(options, "PRESET/FIGURE")
    drawing.draw(arguments.parameters(options, preset), name, options.output or preset.figure(name))
