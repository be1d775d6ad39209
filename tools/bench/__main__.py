"""Measure what hamflow costs: the workflow's own time, what a job adds to its work, and a few speeds. `make bench`.

Seconds are of the wall clock, the best of the repetitions; beside them the seconds of CPU, which other work on the machine
hardly changes. Speeds are compared within one run. Nothing is written but in a temporary folder (and to --output).
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from measuring import Row

from hamflow.pipeline import provenance

SECTIONS = ("workflow", "jobs", "speeds", "steps", "metrics", "peers")  # each a module here with a function of its name


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a part; again for others (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the measurements as JSON, too")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is missed")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="hamflow-bench-") as folder:
        for name in options.only or SECTIONS:
            print(f"--- {name}", flush=True)
            for row in section(name)(Path(folder)):
                print(row, flush=True)
                rows.append(row)
    if options.output:
        options.output.write_text(json.dumps(described(rows), indent=1) + "\n")
    missed = [row.what for row in rows if row.missed]
    if any(row.busy for row in rows):
        print("The machine had other work to do, so that limits were judged by the seconds of CPU.")
    print(f"missed: {', '.join(missed)}" if missed else "all limits are kept")
    return int(options.check and bool(missed))


def section(name: str) -> Any:
    """The function of a part: (an empty folder) -> its measurements."""
    return getattr(importlib.import_module(name), name)


def described(rows: list[Row]) -> dict[str, Any]:
    """The measurements with the machine and the code that they are of."""
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    return {"provenance": provenance.circumstances(**machine) | provenance.origin(), "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    sys.exit(main())
