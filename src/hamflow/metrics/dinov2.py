"""DINOv2 as a feature network, by a weights file that the user names; images are prepared as by torch-fidelity 0.4.0.

torch-fidelity itself takes no local file for it: the transformer is therefore written here, as the published weights want it
(Oquab et al. 2023, arXiv:2304.07193; Dosovitskiy et al. 2020, arXiv:2010.11929).
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from hamflow.errors import DataError
from hamflow.metrics.features import FeatureNetwork, register

VARIABLE = "HAMFLOW_DINOV2"  # of the environment: the file, where the parameters name none
SIDE = 224  # pixels
HEAD = 64  # channels of an attention head, in all published sizes
EPSILON = 1e-6  # of the layer normalisations
OFFSET = 0.1  # of a cell, which the published interpolation of the positions adds to its scale
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in units of 255
WHY = "nothing is fetched without being asked for, and a distance belongs to one network"
FIX = (
    "get dinov2_vitl14_pretrain.pth (the one of published figures, from github.com/facebookresearch/dinov2) and name it in "
    f"evaluation.features.dinov2.path, or in the environment's {VARIABLE}"
)

Digest = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Weights = Mapping[str, Tensor]


@register("dinov2", "DINOv2")
def dinov2(device: torch.device, path: str = "", sha256: Digest = "") -> FeatureNetwork:
    """`fd_dinov2`: the class token of a DINOv2 vision transformer after its last normalisation, 224 x 224 pixels.

    Args:
        path: the published weights (.pth), of any size; empty: the file that HAMFLOW_DINOV2 names.
        sha256: what the file must be; empty: any. It is recorded in every case.
    Raises:
        DataError: no file is named, it is absent, another one, or no such weights.
    """
    content = _read(path or os.environ.get(VARIABLE, ""))
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise DataError(f"the DINOv2 weights have sha256 {found}, not {sha256}", why=WHY, fix=FIX)
    try:
        weights = {key: value.float().to(device) for key, value in _tensors(content).items()}
        dimension = transform(weights, torch.zeros(1, 3, SIDE, SIDE, device=device)).shape[1]
    except (RuntimeError, LookupError, AttributeError, ValueError, TypeError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"the file with sha256 {found[:12]}… has no DINOv2 weights ({reason})", why=WHY, fix=FIX) from error

    def forward(images: Tensor) -> Tensor:
        return transform(weights, preprocess(images))

    return FeatureNetwork("dinov2", "dinov2", dimension, found, forward, device)


def preprocess(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W], C of 1 or 3, to float [N, 3, 224, 224]: TensorFlow's bilinear resizing, ImageNet's scale."""
    x = images.float()
    rows, columns = (_resizer(size).to(x) for size in x.shape[2:])
    x = (rows @ x @ columns.T).expand(-1, 3, -1, -1)
    mean, deviation = (255 * x.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (x - mean) / deviation


def transform(weights: Weights, x: Tensor) -> Tensor:
    """The normalised class token, [N, d], of prepared images, [N, 3, H, W], H and W multiples of the patch."""
    w, (d, _, _, patch) = weights, weights["patch_embed.proj.weight"].shape
    x = functional.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
    positions = _positions(w["pos_embed"], x.shape[2], x.shape[3])
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + positions
    depth = 1 + max(int(key.split(".")[1]) for key in w if key.startswith("blocks."))
    for i in range(depth):
        block = {key.removeprefix(f"blocks.{i}."): value for key, value in w.items() if key.startswith(f"blocks.{i}.")}
        x = x + block["ls1.gamma"] * _attention(block, _normalise(block, "norm1", x))
        x = x + block["ls2.gamma"] * _perceptron(block, _normalise(block, "norm2", x))
    return functional.layer_norm(x[:, 0], (d,), w["norm.weight"], w["norm.bias"], EPSILON)


def _attention(w: Weights, x: Tensor) -> Tensor:
    count, tokens, d = x.shape
    heads = d // min(HEAD, d)
    q, k, v = _linear(w, "attn.qkv", x).view(count, tokens, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, tokens, d)
    return _linear(w, "attn.proj", mixed)


def _perceptron(w: Weights, x: Tensor) -> Tensor:
    if "mlp.w12.weight" in w:  # the largest size has a gate
        gate, value = _linear(w, "mlp.w12", x).chunk(2, -1)
        return _linear(w, "mlp.w3", functional.silu(gate) * value)
    return _linear(w, "mlp.fc2", functional.gelu(_linear(w, "mlp.fc1", x)))


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _normalise(w: Weights, name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPSILON)


def _positions(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """Of the class token and of each patch, [1, 1 + rows columns, d]: the trained ones, on another grid of patches."""
    side = round((embedding.shape[1] - 1) ** 0.5)
    if (rows, columns) == (side, side):
        return embedding
    d = embedding.shape[2]
    grid = embedding[:, 1:].reshape(1, side, side, d).permute(0, 3, 1, 2)
    scale = ((rows + OFFSET) / side, (columns + OFFSET) / side)
    grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([embedding[:, :1], grid.permute(0, 2, 3, 1).reshape(1, rows * columns, d)], 1)


def _resizer(size: int) -> Tensor:
    """The matrix of TensorFlow 1's bilinear resizing of one side, [224, size]: output i lies at i size / 224."""
    place = torch.arange(SIDE) * (size / SIDE)
    low = place.long()
    high = (low + 1).clamp(max=size - 1)
    matrix = torch.zeros(SIDE, size)
    matrix.scatter_add_(1, low[:, None], 1 - (place - low)[:, None])
    return matrix.scatter_add_(1, high[:, None], (place - low)[:, None])


def _read(path: str) -> bytes:
    if not path:
        raise DataError("no DINOv2 weights are named", why=WHY, fix=FIX)
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"the DINOv2 weights {path} cannot be read ({error.strerror})", why=WHY, fix=FIX) from error


def _tensors(content: bytes) -> dict[str, Tensor]:
    """A state dictionary, of which nothing is run. Raises ValueError for other bytes."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("it is no archive of tensors")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
