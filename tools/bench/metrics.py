"""What FID costs beside clean-fid's route by folders; the Fréchet distance itself is among the speeds.

The share is of seconds of CPU within one run. In the place of Inception stands a small network of the same interface that does
not resize, so that the feeding is measured: with Inception itself both routes spend most of their time in the network, and the
same there.
"""

import hashlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Row
from torch import nn
from torch.nn import functional

from hamflow.metrics import features, frechet_distance_of

DIMENSION, SIDE = 2048, 32
IMAGES = 10_000
SHARE = 1 / 3  # of the other's seconds, at most
FILE = "inception-2015-12-05.pt"  # the name that clean-fid's wrapper expects


def metrics(folder: Path) -> Iterator[Row]:
    """The one measurement; nothing is written into the folder."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    yield feeding()


class Layers(nn.Module):
    """Pixels scaled to [-1, 1] to 2048 features of 4 x 4 thumbnails."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, DIMENSION, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return torch.sin(functional.adaptive_avg_pool2d(x, 4).flatten(1) @ self.weight)[:, :, None, None]


class Network(nn.Module):
    """As inception-2015-12-05.pt: `layers`, and a forward pass of images at their own size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x, return_features: bool = False):
        return self.layers((x.float() - 128) / 128).flatten(1)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU, and the result."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def feeding(count: int = IMAGES) -> Row:
    """Features and distance of images from an array, beside clean-fid's route by a folder of their files."""
    fid = clean_fid()
    images = np.random.default_rng(0).integers(0, 256, (2, count, SIDE, SIDE, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, FILE)
        torch.jit.save(torch.jit.script(Network().eval()), path)
        network = features.build("inception", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        from cleanfid.inception_torchscript import InceptionV3W

        written: list[float] = []
        wrapper = InceptionV3W(place, download=False, resize_inside=True)

        def by_folder() -> np.ndarray:
            from PIL import Image

            folder = Path(place, "images")
            folder.mkdir()
            began = time.process_time()
            for i, image in enumerate(images[0]):
                Image.fromarray(image).save(folder / f"{i:06}.png")
            written.append(time.process_time() - began)
            settings = {"num_workers": 0, "device": torch.device("cpu"), "mode": "legacy_tensorflow", "verbose": False}
            return fid.get_folder_features(str(folder), wrapper, **settings)

        network.extract(images[0][:32])  # the first pass compiles
        ours, found = seconds(lambda: network.extract(images[0]))
        others, theirs = seconds(by_folder)
    if not np.allclose(found, theirs, atol=1e-3):
        raise SystemExit(f"the features differ by {np.abs(found - theirs).max()}")
    if frechet_distance_of(found[:500], theirs[:500]) > 1e-3:
        raise SystemExit("the distance of a set with itself is not zero")
    spent = others - written[0]  # without the writing of the files
    return Row(f"{count} images to features, by clean-fid's folder", ours / spent, "times", limit=SHARE)


def clean_fid() -> Any:
    """clean-fid's own route imports torchvision, which beside a CPU build of torch lacks two operators."""
    clean_fid.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]  # lasts as we do
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            clean_fid.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[attr-defined]
    import cleanfid.fid

    return cleanfid.fid
