"""check the installation, the device and the parameters"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--params", type=Path, action="append", default=[], metavar="FILE", help="parameter files to check")


def run(options: argparse.Namespace) -> None:
    from hamflow.pipeline.doctor import examine

    examine(options.params)
