"""A real SLURM on this machine, and what goes wrong on clusters: nodes that are lost, trainings caught in the act."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from workflows import ROOT, Workflow, copy_tree

from hamflow import config


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 400) -> Any:
    """The first true value of the condition; fails when it does not come in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise TimeoutError(f"waited {seconds} s in vain for {what}")


def named(name: str) -> list[psutil.Process]:
    """The processes of a name."""
    return [process for process in psutil.process_iter(["name"]) if process.info["name"] == name]


def catch(folder: Path, outputs: Iterable[str], end: Future) -> dict[str, psutil.Process]:
    """Stop the trainings that write to some outputs, as soon as each has saved its first state.

    A stopped process (SIGSTOP) cannot end before what is planned for it has happened, however busy the machine is.

    Args:
        folder: where Snakemake runs.
        outputs: folders of checkpoints, checkpoints/<run>; the command line of a training names the run.
        end: of Snakemake, which must not come before.
    """
    caught: dict[str, psutil.Process] = {}

    def all_caught() -> bool:
        assert not end.done(), end.result().stdout
        for output in set(outputs) - caught.keys():
            if any(folder.glob(f"{output}/state/*/state.safetensors")) and (process := training(folder, output)):
                process.suspend()
                caught[output] = process
        return len(caught) == len(set(outputs))

    wait_for(f"the first states of {outputs}", all_caught)
    return caught


def training(folder: Path, output: str) -> psutil.Process | None:
    """The process of `hamflow train RUN` in a folder."""
    run = output.removeprefix("checkpoints/")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if "train" in line and run in line and process.cwd() == str(folder):
                return process
    return None


def warned(process: psutil.Process) -> bool:
    """Whether SIGTERM has been sent to a stopped process, which cannot have noticed it yet."""
    pending = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text(), flags=re.MULTILINE)[1]
    return bool(int(pending, 16) & 1 << signal.SIGTERM - 1)


class Cluster:
    """The cluster that `start` made in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def command(self, *arguments: str) -> str:
        """Run a command of SLURM; returns what it says."""
        return subprocess.run(arguments, check=True, text=True, capture_output=True, timeout=60).stdout

    def jobs(self, folder: Path) -> list[dict[str, str]]:
        """What `scontrol show job` says of every job submitted from a folder, the first submitted first."""
        lines = self.command("scontrol", "show", "job", "--oneliner").splitlines()
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        return sorted((job for job in jobs if job.get("WorkDir") == str(folder)), key=lambda job: int(job["JobId"]))

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says of one."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.command("scontrol", "show", "job", "--oneliner", number)))

    def node_state(self, node: str) -> str:
        """IDLE, MIXED, DOWN, ..."""
        return re.search(r"State=(\S+)", self.command("scontrol", "show", "node", node))[1]

    def lose(self, node: str) -> None:
        """Kill a node's daemon and all that runs under it at once, as a loss of power would."""
        log = str(self.folder / f"log/slurmd.{node}.log")  # which the node's daemon and its job steps have open
        steps = [p for p in named("slurmstepd") if log in {file.path for file in p.open_files()}]
        doomed = [process for step in steps for process in [step, *step.children(recursive=True)]]
        for process in [*(p for p in named("slurmd") if p.cmdline()[1:] == ["-N", node]), *doomed]:
            with suppress(psutil.NoSuchProcess):  # it ends by itself when the one before it is gone
                process.kill()

    def restore(self, node: str) -> None:
        """Start a lost node's daemon again."""
        self.command("slurmd", "-N", node)


class ClusterWorkflow(Workflow):
    """A copy of the workflow whose profile `site` is profiles/slurm with edits, as a user would make them."""

    def __init__(self, folder: Path, edits: config.Config):
        super().__init__(copy_tree(folder))
        shipped = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
        quick = {"latency-wait": 10, "slurm-init-seconds-before-status-checks": 2, "slurm-keep-successful-logs": True}
        (folder / "profiles/site").mkdir()
        (folder / "profiles/site/config.yaml").write_text(yaml.safe_dump(config.merge(shipped | quick, edits)))

    def on_cluster(self, *arguments: str, seconds: int = 900) -> subprocess.CompletedProcess:
        """Run Snakemake with the profile; at the end of the time SIGINT, unlike SIGTERM, makes it cancel its jobs."""
        bounded = ("timeout", "--signal=INT", "--kill-after=20", str(seconds))
        return self.command(*bounded, "snakemake", "--workflow-profile", "profiles/site", *arguments)
