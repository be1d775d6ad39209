"""Measure what the metrics cost beside others: the Fréchet distance beside a matrix root, FID beside clean-fid's folders.

`python tools/bench_metrics.py`, a minute or two. Ratios are of seconds of CPU within one run; `--images` and `--features` make
it smaller. In the place of Inception stands a small network of the same interface that does not resize, so that the feeding is
measured: with Inception itself both routes spend most of their time in the network, and the same there.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from hamflow.metrics import features, frechet_distance, frechet_distance_of

DIMENSION, SIDE = 2048, 32
FILE = "inception-2015-12-05.pt"  # the name that clean-fid's wrapper expects


class Ratio(NamedTuple):
    """Seconds of ours and of the other's, and by how many times ours must be faster."""

    what: str
    ours: float
    others: float
    least: float

    @property
    def missed(self) -> bool:
        return self.others < self.least * self.ours

    def __str__(self) -> str:
        verdict = "MISSED" if self.missed else "within"
        times = f"{self.ours:8.2f} s  {self.others:8.2f} s  {self.others / self.ours:6.1f} x"
        return f"{self.what:44} {times}  {verdict} {self.least:g} x"


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


def distance(dimension: int = DIMENSION) -> Ratio:
    """The Fréchet distance of two covariances of full rank, beside the matrix root of their product."""
    import scipy.linalg

    rng = np.random.default_rng(0)
    covariances = [np.cov(rng.standard_normal((2 * dimension, dimension)), rowvar=False) for _ in range(2)]
    means = [rng.standard_normal(dimension) for _ in range(2)]

    def by_root() -> float:
        cross = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
        return float(np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * cross))

    ours, value = seconds(lambda: frechet_distance(means[0], covariances[0], means[1], covariances[1]))
    others, exact = seconds(by_root)
    if abs(value - exact) > 1e-6 * abs(exact):
        raise SystemExit(f"the distances differ: {value} and {exact}")
    return Ratio(f"Fréchet distance, d = {dimension}: sqrtm", ours, others, 3.0)


def feeding(count: int) -> Ratio:
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
        print(f"{'(writing the files, which is not counted)':44} {'':10}  {written[0]:8.2f} s")
    if not np.allclose(found, theirs, atol=1e-3):
        raise SystemExit(f"the features differ by {np.abs(found - theirs).max()}")
    if frechet_distance_of(found[:500], theirs[:500]) > 1e-3:
        raise SystemExit("the distance of a set with itself is not zero")
    return Ratio(f"{count} images to features of fid: clean-fid", ours, others - written[0], 3.0)


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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=DIMENSION)
    parser.add_argument("--check", action="store_true", help="fail where a ratio is missed")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"{'':44} {'ours':>10}  {'theirs':>10}")
    found = []
    for measure in (lambda: distance(options.features), lambda: feeding(options.images)):
        found.append(measure())
        print(found[-1], flush=True)
    return int(options.check and any(ratio.missed for ratio in found))


if __name__ == "__main__":
    sys.exit(main())
