"""DINOv2 against the published code, by small random weights, and its images against torch-fidelity's.

Oracles where they are installed: `pip install --no-deps dinov2==0.0.1.dev2 torch-fidelity==0.4.0`.
"""

import hashlib

import numpy as np
import pytest
import torch

from hamflow.errors import DataError
from hamflow.metrics import dinov2, features

WIDTH, PATCH, DEPTH = 128, 14, 2


def random_weights(gated=False, side=5):
    """Weights of a transformer of two heads and two blocks, trained on side x side patches."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return 0.3 * torch.randn(*shape, generator=rng)

    found = {"patch_embed.proj.weight": 0.1 * normal(WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": normal(WIDTH)}
    found |= {"cls_token": normal(1, 1, WIDTH), "pos_embed": normal(1, 1 + side**2, WIDTH), "mask_token": normal(1, WIDTH)}
    sizes = {"mlp.w12": (80, WIDTH), "mlp.w3": (WIDTH, 40)} if gated else {"mlp.fc1": (99, WIDTH), "mlp.fc2": (WIDTH, 99)}
    sizes |= {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    for i in range(DEPTH):
        for name, size in sizes.items():
            found |= {f"blocks.{i}.{name}.weight": normal(*size), f"blocks.{i}.{name}.bias": normal(size[0])}
        for name in ("norm1", "norm2"):
            found |= {f"blocks.{i}.{name}.weight": 1 + normal(WIDTH), f"blocks.{i}.{name}.bias": normal(WIDTH)}
        found |= {f"blocks.{i}.{name}.gamma": normal(WIDTH) for name in ("ls1", "ls2")}
    return found | {"norm.weight": 1 + normal(WIDTH), "norm.bias": normal(WIDTH)}


@pytest.fixture
def file(tmp_path):
    torch.save(random_weights(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_transformer_is_the_published_one(monkeypatch):
    """Of 16 x 16 patches, for positions that were trained on 5 x 5."""
    monkeypatch.setenv("XFORMERS_DISABLED", "1")
    published = pytest.importorskip("dinov2.models.vision_transformer")
    theirs = published.DinoVisionTransformer(
        img_size=5 * PATCH,
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=WIDTH // 64,
        mlp_ratio=99 / WIDTH,
        init_values=1.0,
        block_chunks=0,
    )
    theirs.load_state_dict(random_weights())
    x = torch.randn(2, 3, dinov2.SIDE, dinov2.SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(dinov2.transform(random_weights(), x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [8, 28, 32, 64, 300])
def test_images_are_resized_as_torch_fidelity_does(cleanfid, size):
    """The fixture declares the operators that torchvision lacks beside a CPU build of torch."""
    theirs = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = theirs(images.float(), size=(dinov2.SIDE, dinov2.SIDE), align_corners=False) / 255
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (dinov2.MEAN, dinov2.DEVIATION))
    torch.testing.assert_close(dinov2.preprocess(images), (exact - mean) / deviation, rtol=0, atol=2e-5)


def test_a_picture_of_one_grey_stays_one_and_a_ramp_stays_a_ramp():
    """Bilinear weights sum to one and reproduce lines, up to the last cell, where the edge is repeated."""
    flat = dinov2.preprocess(torch.full((1, 1, 9, 7), 100, dtype=torch.uint8))
    assert float(flat.std((2, 3)).max()) < 1e-5
    matrix = dinov2._resizer(32)
    ramp = matrix @ torch.arange(32.0)
    inside = ramp < 31
    torch.testing.assert_close(ramp[inside], (torch.arange(224) * 32 / 224)[inside], rtol=0, atol=1e-4)


def test_a_gate_in_the_perceptron_is_silu_times_value():
    weights = {"mlp.w12.weight": torch.tensor([[2.0], [3.0]]), "mlp.w12.bias": torch.zeros(2)}
    weights |= {"mlp.w3.weight": torch.tensor([[1.0]]), "mlp.w3.bias": torch.tensor([0.5])}
    x = torch.tensor([[0.7]])
    exact = 1.4 / (1 + np.exp(-1.4)) * 2.1 + 0.5
    assert float(dinov2._perceptron(weights, x)) == pytest.approx(exact, rel=1e-6)
    gated = dinov2.transform(random_weights(gated=True), torch.zeros(1, 3, 28, 28))
    assert gated.shape == (1, WIDTH)


def test_it_is_a_feature_network_whose_file_is_named_and_recorded(file, monkeypatch, tmp_path):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setenv(dinov2.VARIABLE, str(file))
    network = features.build("dinov2", sha256=digest)
    assert (network.suffix, network.dimension, network.sha256) == ("dinov2", WIDTH, digest)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    assert network.extract(images).shape == (3, WIDTH)
    assert np.array_equal(network.extract(images), network.extract(images.repeat(3, 3)))


def test_what_is_no_such_file_is_a_paragraph(file, tmp_path, monkeypatch):
    monkeypatch.delenv(dinov2.VARIABLE, raising=False)
    (tmp_path / "foreign.pth").write_bytes(b"nothing")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    for options, message in (
        ({}, "no DINOv2 weights are named"),
        ({"path": str(tmp_path / "absent.pth")}, "cannot be read"),
        ({"path": str(file), "sha256": "0" * 64}, "not 0000"),
        ({"path": str(tmp_path / "foreign.pth")}, "has no DINOv2 weights"),
        ({"path": str(tmp_path / "other.pth")}, "has no DINOv2 weights"),
    ):
        with pytest.raises(DataError, match=message):
            features.build("dinov2", **options)
