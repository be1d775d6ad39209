"""Inception-v3 as FID is defined: clean-fid's wrapper and resizer on the TorchScript file that the user names."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from hamflow.errors import DataError
from hamflow.metrics.features import FeatureNetwork, register

SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
DIMENSION = 2048
FILE = "inception-2015-12-05.pt"  # the name that clean-fid's wrapper expects
ORIGIN = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
VARIABLE = "HAMFLOW_INCEPTION"  # of the environment: the file, where the parameters name none
WHY = "an FID is an FID with this one network only, and nothing is fetched without being asked for"

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


@register("inception", "Inception-v3 (TensorFlow's resizing)")
def inception(device: torch.device, path: str = "", sha256: Digest = SHA256) -> FeatureNetwork:
    """`fid`: clean-fid's mode "legacy_tensorflow", resized within the network; the protocol of EDM.

    Args:
        path: the TorchScript file; empty: the one that HAMFLOW_INCEPTION names. sha256: what it must be.
    Raises:
        DataError: no file is named, it is absent, another one, or no such network.
    """
    network = load(path, sha256, device, resize_inside=True)
    return _features("inception", "fid", "kid", sha256, lambda images: network(_colour(images)), device)


@register("inception_clean", "Inception-v3 (clean-fid's resizing)")
def inception_clean(device: torch.device, path: str = "", sha256: Digest = SHA256) -> FeatureNetwork:
    """`clean_fid`: clean-fid's mode "clean", resized by Pillow's antialiased bicubic filter. Arguments as of `inception`."""
    network, resize = load(path, sha256, device, resize_inside=False), _clean_fid("resize").build_resizer("clean")

    def forward(images: Tensor) -> Tensor:
        rows = _colour(images).permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
        resized = torch.from_numpy(np.stack([resize(row) for row in rows]))
        return network(resized.permute(0, 3, 1, 2).to(device))

    return _features("inception_clean", "clean_fid", "clean_kid", sha256, forward, device)


def load(path: str, sha256: str, device: torch.device, resize_inside: bool) -> Callable[[Tensor], Tensor]:
    """clean-fid's `InceptionV3W` of a file whose bytes were checked: pixels 0 to 255, float [N, 3, H, W] -> [N, 2048].

    Raises:
        DataError: no file is named, it is absent, another one, or no such network.
    """
    content = _read(path or os.environ.get(VARIABLE, ""), sha256)
    with tempfile.TemporaryDirectory() as folder:  # of the bytes that were checked, under the name that the wrapper expects
        Path(folder, FILE).write_bytes(content)
        try:
            wrapper = _clean_fid("inception_torchscript").InceptionV3W(folder, download=False, resize_inside=resize_inside)
        except (RuntimeError, AttributeError) as error:
            raise DataError(
                f"the file with sha256 {sha256[:12]}… is no TorchScript network with `layers` ({str(error).splitlines()[0]})",
                why=WHY,
                fix=_fix(),
            ) from error
    wrapper = wrapper.to(device).eval()

    def forward(x: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # a profiled graph is fused after a few calls: other bits
            return wrapper(x)

    return forward


def _read(path: str, sha256: str) -> bytes:
    if not path:
        raise DataError("no Inception network is named", why=WHY, fix=_fix())
    try:
        content = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"the Inception network {path} cannot be read ({error.strerror})", why=WHY, fix=_fix()) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} has sha256 {found}, not {sha256}",
            why="distances under other weights are no FID that anybody else could compare",
            fix=f"{_fix()}; or, to insist on this file, set evaluation.features.<network>.sha256 to its sha256",
        )
    return content


def _fix() -> str:
    return f"get {ORIGIN} and name it in evaluation.features.<network>.path, or in the environment's {VARIABLE}"


def _clean_fid(module: str) -> Any:
    """A module of clean-fid that needs no torchvision, of which there is no build for every torch."""
    import importlib

    try:
        return importlib.import_module(f"cleanfid.{module}")
    except ImportError as error:
        raise DataError(f"clean-fid cannot be imported ({error})", why=WHY, fix="pip install clean-fid==0.1.35") from error


def _colour(images: Tensor) -> Tensor:
    return images.float().expand(-1, 3, -1, -1)


def _features(
    name: str, frechet: str, kernel: str, sha256: str, forward: Callable[[Tensor], Tensor], device: torch.device
) -> FeatureNetwork:
    names: Mapping[str, str] = {
        "fd_{suffix}": frechet,
        "fd_{suffix}_relative": f"{frechet}_relative",
        "kd_{suffix}": kernel,
    }
    return FeatureNetwork(name, name, DIMENSION, sha256, forward, device, names)
