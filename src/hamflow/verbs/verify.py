"""do a preset's work again in an empty folder, and compare every file with what is here

Exit code 2 if it did not come out again.
"""

import argparse
from pathlib import Path

from hamflow.pipeline.verify import STANDARD_ERRORS, TOLERANCE
from hamflow.verbs import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_place(parser, "PRESET")
    parser.add_argument(
        "--only", action="append", default=[], metavar="DATASET/METHOD/seedK", help="only this run; again for more"
    )
    parser.add_argument("--again", type=Path, metavar="DIR", help="compare with this folder, in which the work was done again")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="do it again here, and keep it (default: a temporary folder)"
    )
    parser.add_argument("--cores", default="all", help="of Snakemake (default: all); changes no number")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"on another kind of machine: largest relative change of a metric (default: {TOLERANCE:g}), where it exceeds "
        f"{STANDARD_ERRORS:g} of its standard errors",
    )


def run(options: argparse.Namespace) -> None:
    from hamflow.pipeline import verify

    preset = arguments.preset_of(options)
    parameters = arguments.parameters(options, preset)
    verify.verify(preset, parameters, options.only, options.again, options.scratch, options.cores, options.tolerance)
