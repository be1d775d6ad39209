"""The machine: device, threads, determinism. Set in one place, for the pipeline and for jobs by hand."""

import os
import re
from typing import TYPE_CHECKING

from hamflow.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

THREADS = "OMP_NUM_THREADS"
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # of numpy and scipy: read when they are first imported


def pin() -> None:
    """Give every numerical library the same number of threads: OMP_NUM_THREADS, or 1. Call it before they are imported.

    Another number of threads adds in another order, and gives other bits.
    """
    threads = os.environ.setdefault(THREADS, "1").split(",")[0]  # OpenMP: a number for each level of nesting
    for name in BLAS_THREADS:
        os.environ[name] = threads
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace


def configure(device: str = "auto") -> "torch.device":
    """Choose the device, pin torch's threads and ask for deterministic algorithms; prints what was chosen and why.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
    Raises:
        ConfigurationError: a CUDA device that is not there.
    """
    import torch

    pin()
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, without importing the compiler (2 s)
    threads = _threads()
    torch.set_num_threads(threads)
    available = torch.cuda.is_available()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigurationError(f"there is no device '{device}'", fix="--device auto, cpu, cuda, cuda:1, ...")
    own = os.environ.get("LOCAL_RANK")  # of the processes that torchrun started here, each of which has a device of its own
    cuda = f"cuda:{own}" if own else "cuda"
    chosen = torch.device((cuda if available else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device '{chosen}' was asked for, but this machine has {torch.cuda.device_count() or 'no'} CUDA device(s)",
            fix="--device cpu" if not available else "--device cuda:0",
        )
    if chosen.index is not None:
        torch.cuda.set_device(chosen)
    if chosen.type == "cuda":  # the backward passes of these two add in any order, in "warn" too; the plain one does not
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
    reason = "asked for" if device != "auto" else "a CUDA device is there" if available else "no CUDA device is there"
    print(f"device {chosen} ({reason}), {threads} thread(s) ({THREADS})", flush=True)
    return chosen


def _threads() -> int:
    first = os.environ[THREADS].split(",")[0].strip()
    if not first.isdigit() or int(first) < 1:
        raise ConfigurationError(f"{THREADS} is '{os.environ[THREADS]}', not a number of threads", fix=f"export {THREADS}=1")
    return int(first)


def describe_device(device: "torch.device | str") -> str:
    """The device in words, for the provenance."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}"
