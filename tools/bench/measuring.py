"""What is measured, and how."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REPETITIONS = 2


@dataclass
class Row:
    """One measurement; `limit` is the largest value allowed, if there is one."""

    what: str
    value: float
    unit: str
    cpu_seconds: float | None = None
    limit: float | None = None
    busy: bool = field(default_factory=lambda: os.getloadavg()[0] > (os.cpu_count() or 1))

    @property
    def missed(self) -> bool:
        """Whether it is over its limit; on a machine with other work to do, by the seconds of CPU where they are known."""
        judged = self.cpu_seconds if self.busy and self.cpu_seconds is not None else self.value
        return self.limit is not None and judged > self.limit

    def __str__(self) -> str:
        cpu = "" if self.cpu_seconds is None else f"{self.cpu_seconds:.1f} s CPU"
        limit = "" if self.limit is None else f"{'MISSED' if self.missed else 'within'} {self.limit:g} {self.unit}"
        return f"{self.what:58} {self.value:12,.3g} {self.unit:12} {cpu:12} {limit}".rstrip()


def fastest(work: Callable[[], Any], device: Any) -> float:
    """Seconds of one call: the best of several, after one that is not counted."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(7))


def timed(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> tuple[str, float, float]:
    """Run a command; returns (its output, wall seconds, CPU seconds of it and of what it started)."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    path = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=inherited | path | {"PYTHONPATH": str(ROOT / "src")} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}")
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(measure: Callable[[], tuple[str, float, float]], times: int = REPETITIONS) -> tuple[str, float, float]:
    """The repetition with the shortest wall time."""
    return min((measure() for _ in range(times)), key=lambda result: result[1])


def measured(
    what: str,
    command: list[str],
    folder: Path,
    limit: float | None = None,
    times: int = REPETITIONS,
    made: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Row:
    """The best of several runs of a command; `made` is removed before each, where a second run would find it and do nothing."""

    def once() -> tuple[str, float, float]:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        return timed(command, folder, environment)

    _, wall, cpu = best(once, times)
    return Row(what, wall, "s", cpu, limit)
