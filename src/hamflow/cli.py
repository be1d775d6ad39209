"""The command line: `hamflow VERB`. Exit 0 done, 2 the user's mistake (one paragraph), 75 stopped by SIGTERM, 1 a bug."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hamflow import __version__, runtime
from hamflow.errors import UserError

BROKEN_PIPE = 141  # as a shell calls the end by SIGPIPE

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than this shell or file system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
}
PATH_ERRORS = {
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "it is there already, and no folder",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder, not a file",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code."""
    runtime.pin()
    try:
        options = parser().parse_args(arguments)
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's end would meet it again
        return BROKEN_PIPE  # not 0: the work may not be done
    except OSError as error:
        if error.errno in PATH_ERRORS and error.filename:
            print(f"PathError: {error.filename}: {PATH_ERRORS[error.errno]}", file=sys.stderr)
            print("  Fix: look at the paths that were given.", file=sys.stderr)
            return 2
        if error.errno not in DISK_ERRORS:
            raise
        print(f"DiskError: {DISK_ERRORS[error.errno]}: {error.filename or 'while writing'}", file=sys.stderr)
        print("  Nothing half-written was left behind: files appear only when complete.", file=sys.stderr)
        print("  Fix: make room or change the permission, and start the same command again; it resumes.", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    root = argparse.ArgumentParser(prog="hamflow", description="Hamiltonian generative modelling.")
    root.add_argument("--version", action="version", version=f"hamflow {__version__}")
    subparsers = root.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in verbs():
        module = import_module(f"hamflow.verbs.{name}")
        text = str(module.__doc__).partition("\n\n")[0]
        verb = subparsers.add_parser(name, help=text, description=module.__doc__)
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return root


def verbs() -> list[str]:
    """Every verb: the modules of the folder verbs/ but for what they share."""
    return sorted({path.stem for path in (Path(__file__).parent / "verbs").glob("[a-z]*.py")} - {"arguments"})


if __name__ == "__main__":
    sys.exit(main())
