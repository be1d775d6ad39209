"""where a number comes from: from a metrics JSON back to its data; of a folder results/<preset>: a manifest (RO-Crate)

The manifest is written beside results/, where its names lead to the files.
"""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="results/<preset>/metrics/..., a .json; or results/<preset>")
    parser.add_argument(
        "--root", type=Path, help="holds data/ and checkpoints/ (default: the folder above results/ in the path)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> None:
    from hamflow.pipeline import crate, trace

    if options.path.is_dir():
        path, entities = crate.write(options.path, options.root)
        print(f"{path}: {entities} entities")
        return
    chain = trace.trace(options.path, options.root)
    print(json.dumps(chain, indent=1, sort_keys=True) if options.json else trace.as_text(chain))
