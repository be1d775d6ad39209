"""The machine: device, threads, determinism. Set in one place, for the pipeline and for jobs by hand."""

import os

import torch

from hamflow.errors import ConfigurationError


def configure(device: str = "auto") -> torch.device:
    """Choose the device, pin the threads and ask for deterministic algorithms; prints what was chosen and why.

    Args:
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1", ...
    Raises:
        ConfigurationError: a CUDA device that is not there.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with a fixed workspace
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, without importing the compiler (2 s)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)  # 1 by default: another number of threads gives other bits
    available = torch.cuda.is_available()
    chosen = torch.device(("cuda" if available else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and not available:
        raise ConfigurationError(f"device '{device}' was asked for, but this machine has no CUDA device", fix="--device cpu")
    reason = "asked for" if device != "auto" else "a CUDA device is there" if available else "no CUDA device is there"
    print(f"device {chosen} ({reason}), {threads} thread(s) (OMP_NUM_THREADS)", flush=True)
    return chosen


def describe_device(device: torch.device | str) -> str:
    """The device in words, for the provenance."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}"
