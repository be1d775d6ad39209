"""The one exception for a user's mistake: what is wrong, why it matters, and the fix."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend. The command line prints it as one paragraph and exits with 2.

    Args:
        what: what is wrong, naming the file or key and the value found.
        why: why it matters; may be empty.
        fix: what to type or to change; may be empty.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = ""):
        self.what, self.why, self.fix = what, why, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"{type(self).__name__}: {self.what}"]
        if self.why:
            lines.append(f"  Why it matters: {self.why}")
        if self.fix:
            lines.append(f"  Fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self):  # keyword-only arguments, so that the error survives a process pool
        return _rebuild, (type(self), self.what, self.why, self.fix)


class ConfigurationError(UserError):
    """A key, type or value of the configuration that cannot be."""


class NotOffered(ConfigurationError):
    """What a kind of method does not have: samples of a score, the score of a GAN."""


class DataError(UserError):
    """A data set that is missing, corrupted, or not the one that it should be."""


class CheckpointError(UserError):
    """A checkpoint that is missing, truncated, or of another configuration."""


class DivergenceError(UserError):
    """A training run or a trajectory that left the finite numbers."""


def _rebuild(kind: type[UserError], what: str, why: str, fix: str) -> UserError:
    return kind(what, why=why, fix=fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the closest legal names, for a misspelt one."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
