"""SIGTERM as a request: the step under way is finished, the state is saved, and the run ends with a code of its own."""

import signal
import threading
from types import TracebackType
from typing import Any

# EX_TEMPFAIL of sysexits.h, "try again": neither a mistake (2) nor a bug (1), nor 143, which a shell reports of a process
# that SIGTERM killed before it could save anything. Not zero, so that Snakemake and SLURM see work that is not done.
EXIT_CODE = 75


class Interrupted(Exception):
    """A training run that stopped because it was asked to, its state saved: the same call goes on from there."""


class Termination:
    """Within this context SIGTERM, the warning of SLURM, Kubernetes and every init system, only raises `requested`.

    Outside the main thread, where Python allows no signal handlers, the context changes nothing and nothing is requested.

    Attributes:
        requested: whether SIGTERM has come.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Termination":
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._handles:  # a handler that was not Python's is reported as None, and cannot be given back
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._previous is None else self._previous)

    def _request(self, *_signal_and_frame: Any) -> None:
        self.requested = True
