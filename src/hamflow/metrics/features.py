"""Feature networks by name. A new one is a function that returns how images become features."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow.data.arrays import take
from hamflow.errors import DataError
from hamflow.registry import Registry

Build = Callable[..., "FeatureNetwork"]
CPU_CHUNK = 16  # images at a time: the activations stay in the cache (3x the rate of 256 at a time)


@dataclass(frozen=True)
class FeatureNetwork:
    """A network under whose features distributions of images are compared.

    Args:
        name: as in params.yaml.
        suffix: of the metrics' names: fd_<suffix>, kd_<suffix>.
        dimension: d, of a feature vector.
        sha256: of the weights.
        forward: uint8 images [N, C, H, W], C of 1 or 3, on `device` -> float32 features [N, d].
        device: where it runs.
        names: how the literature calls metrics under it: {"fd_{suffix}": "fid"}.
    """

    name: str
    suffix: str
    dimension: int
    sha256: str
    forward: Callable[[Tensor], Tensor]
    device: torch.device
    names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, images: np.ndarray, batch: int = 256) -> Iterator[np.ndarray]:
        """Features of uint8 images [N, H, W, C], part by part, float32 [n, d].

        Every part is filled up to one size, so that the features of an image depend on that image alone.

        Args:
            batch: images at a time on a GPU.
        Raises:
            DataError: no images, or an array of something else.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
            raise DataError(
                f"features are of uint8 images [N, H, W, 1 or 3], N > 0, not of {images.dtype} {list(images.shape)}",
                why="floats, which may be no numbers, images of several sizes, or none at all would give a distance to nothing",
                fix="round to 0 ... 255, one size for all",
            )
        chunk = CPU_CHUNK if self.device.type == "cpu" else batch
        for start in range(0, len(images), chunk):
            rows = take(images, np.arange(start, min(start + chunk, len(images))))
            part = torch.from_numpy(rows).permute(0, 3, 1, 2)
            filled = torch.cat([part, part.new_zeros(chunk - len(part), *part.shape[1:])]).to(self.device)
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False, deterministic=True):
                yield self.forward(filled)[: len(part)].float().cpu().numpy()

    def extract(self, images: np.ndarray, batch: int = 256) -> np.ndarray:
        """All of them, [N, d]."""
        return np.concatenate(list(self(images, batch)))


POINTS = "points"  # the features of points: the points themselves
_NETWORKS: Registry = Registry("feature network", "hamflow.metrics", given=("device",))
_LABELS = {POINTS: "points"}
names = _NETWORKS.names


def register(name: str, label: str = "") -> Callable[[Build], Build]:
    """Decorator: enter a function that returns a `FeatureNetwork`; `label` is its name in tables and figures.

    Its first argument is the device; the others, annotated, are options, `evaluation.features.<name>` of the parameters.
    """
    _LABELS[name] = label or name
    return _NETWORKS.register(name)


def label(name: str) -> str:
    """The label of a feature network in tables and figures; its name if it is not registered."""
    names()  # finds all
    return _LABELS.get(name, name)


def check(name: str, options: Mapping[str, Any], where: str) -> None:
    """Raise ConfigurationError for an unknown name or option, or a value that cannot be; `where` is the key that has them."""
    _NETWORKS.check(name, options, where)


def build(name: str, device: torch.device | str = "cpu", **options: Any) -> FeatureNetwork:
    """The network of that name, on that device, with its options.

    Raises:
        ConfigurationError: an unknown name or option.
        DataError: its weights are absent or not the right ones.
    """
    return _NETWORKS.build(name, torch.device(device), **options)


@register("efficientnet_lite0", "EfficientNet-Lite0")
def efficientnet_lite0(device: torch.device) -> FeatureNetwork:
    """EfficientNet-Lite0, ImageNet-1k, last block pooled, 320-d, 96 x 96 pixels."""
    return _efficientnet("lite0", device)


@register("efficientnet_lite1", "EfficientNet-Lite1")
def efficientnet_lite1(device: torch.device) -> FeatureNetwork:
    """EfficientNet-Lite1, 320-d, as `efficientnet_lite0`: a second opinion on a ranking. Its package is optional."""
    return _efficientnet("lite1", device)


@register("efficientnet_lite2", "EfficientNet-Lite2")
def efficientnet_lite2(device: torch.device) -> FeatureNetwork:
    """EfficientNet-Lite2, 352-d, as `efficientnet_lite1`."""
    return _efficientnet("lite2", device)


def _efficientnet(size: str, device: torch.device) -> FeatureNetwork:
    from hamflow.metrics import efficientnet

    model = efficientnet.MODELS[size]
    network = efficientnet.network(efficientnet.load_weights(model=model), model).to(device)

    def forward(images: Tensor) -> Tensor:
        return network(efficientnet.preprocess(images)).mean((2, 3))

    return FeatureNetwork(model.name, f"en{size}", model.dimension, model.sha256, forward, device)
