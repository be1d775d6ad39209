"""DDPM++ and NCSN++: the published sizes to the parameter, and each part against its own formula."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hamflow import networks
from hamflow.networks.base import NETWORKS
from hamflow.networks.blocks import Attention
from hamflow.networks.embeddings import FourierEmbedding, PositionalEmbedding
from hamflow.networks.song import AdditiveBlock, Resample

CIFAR, FFHQ, EARLIER = ((3, 32, 32), (2, 2, 2)), ((3, 64, 64), (1, 2, 2, 2)), ((3, 32, 32), (1, 2, 2, 2))
PUBLISHED = [  # kind, image and multipliers, classes, augmentation, parameters
    ("ddpmpp", CIFAR, 0, True, 55_733_891),
    ("ddpmpp", CIFAR, 10, True, 55_735_299),
    ("ncsnpp", CIFAR, 0, True, 56_397_827),
    ("ncsnpp", CIFAR, 10, True, 56_400_643),
    ("ddpmpp", FFHQ, 0, True, 61_805_571),
    ("ncsnpp", FFHQ, 0, True, 62_761_091),
    ("ddpmpp", EARLIER, 0, False, 61_804_419),
    ("ncsnpp", EARLIER, 0, False, 62_758_787),
]
TINY = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}


def published(kind, shape, multipliers, classes=0, augmentation=True):
    with torch.device("meta"):  # no memory, no time
        return NETWORKS.get(kind)(shape, classes, 128, multipliers, 4, (16,), 0.13, augmentation)


def tiny(kind, shape=(1, 8, 8), classes=0, **options):
    return networks.build({"kind": kind, **TINY, **options}, shape, classes)


@pytest.mark.parametrize(("kind", "data", "classes", "augmentation", "parameters"), PUBLISHED)
def test_it_has_the_published_number_of_parameters(kind, data, classes, augmentation, parameters):
    network = published(kind, *data, classes, augmentation)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


@pytest.mark.parametrize(("data", "giga"), [(CIFAR, 21.19), (FFHQ, 41.86)])
def test_an_image_costs_the_published_number_of_multiplications(data, giga):
    """Of multiplications with an addition, 10^9 an image, DDPM++: Karras et al. 2022's networks."""
    network = published("ddpmpp", *data).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *data[0], device="meta"), torch.empty(1, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp"])
def test_attention_stands_where_it_was_published(kind):
    """After each of the 4 blocks at 16 pixels on the way down, after the last of 5 on the way up, once in the middle."""
    network = published(kind, *CIFAR)
    stages = {"down": network.down, "middle": network.middle, "up": network.up}
    where = {name: [i for i, stage in enumerate(part) if stage.attention is not None] for name, part in stages.items()}
    assert where == {"down": [5, 6, 7, 8], "middle": [0], "up": [10]}  # 32: 4 blocks; the halving; 16: ... | 8: 5; up; 16: 5
    assert {module.heads for module in network.modules() if isinstance(module, Attention)} == {1}


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp"])
def test_the_gains_at_the_start(kind):
    """Xavier's law has variance 2 / (fan in + fan out); ends of blocks have 1e-5 of its deviation, attention sqrt .2."""
    network = tiny(kind, channels=64)
    gains = {"conv2": 1e-5, "project": 1e-5, "qkv": math.sqrt(0.2), "leave": 1e-5}
    for name, weight in network.named_parameters():
        if weight.ndim < 2:
            assert bool((weight == 0).all()) or name.rpartition(".")[0].rpartition(".")[2].startswith(("norm", "0")), name
            continue
        fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
        gain = next((g for part, g in gains.items() if part in name), 1.0)
        spread = float(weight.detach().std()) / math.sqrt(2 / fans)
        assert spread == pytest.approx(gain, rel=4 / math.sqrt(weight.numel())), name


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_resampling_keeps_a_constant_and_is_a_convolution(way, taps):
    """Inside; at the border NCSN++ sees zeros. The reference puts zeros between pixels, or drops every second, explicitly."""
    resample = Resample(way, taps)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(resample(torch.ones(1, 2, 16, 16))[inside].unique(), torch.ones(1))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
    kernel = torch.outer(line, line).expand(3, 1, -1, -1)
    if way == "down":
        reach = (len(taps) - 1) // 2
        reference = functional.conv2d(functional.pad(x, (reach,) * 4), kernel, groups=3)[:, :, ::2, ::2]
    else:
        spaced = torch.zeros(2, 3, 16, 16)
        spaced[:, :, ::2, ::2] = x
        reach = len(taps) // 2
        reference = functional.conv2d(functional.pad(spaced, (reach, reach - 1) * 2), 4 * kernel, groups=3)
    torch.testing.assert_close(resample(x), reference, rtol=1e-5, atol=1e-6)


def test_the_filter_without_padding_follows_a_wider_convolution():
    """The image enters NCSN++ again at half its size, by a convolution that sees beyond the border what the filter needs."""
    filtered, padded = Resample("down", (1, 3, 3, 1), padded=False), Resample("down", (1, 3, 3, 1))
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert filtered(functional.pad(x, (1,) * 4)).shape == (1, 2, 4, 4)
    torch.testing.assert_close(filtered(functional.pad(x, (1,) * 4)), padded(x))


def test_a_block_is_its_formula():
    """(skip(r(x)) + conv2(silu(norm2(conv1(r(silu(norm1 x))) + shift c)))) / sqrt 2, r the resampling."""
    torch.manual_seed(0)
    block = AdditiveBlock(8, 12, 5, "down", (1, 3, 3, 1), 0.0)
    x, c = torch.randn(2, 8, 8, 8), torch.randn(2, 5)
    half, silu = block.resample, functional.silu
    h = functional.conv2d(half(silu(block.norm1(x))), block.conv1.weight, block.conv1.bias, padding=1)
    h = silu(block.norm2(h + (c @ block.shift.weight.T + block.shift.bias)[:, :, None, None]))
    h = functional.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    skip = torch.einsum("oi,nihw->nohw", block.skip.weight[:, :, 0, 0], half(x)) + block.skip.bias[:, None, None]
    torch.testing.assert_close(block(x, c), (skip + h) / math.sqrt(2))


def test_embeddings_are_waves():
    labels = torch.tensor([-1.5, 0.0, 3.0])
    waves = PositionalEmbedding(8)(labels)
    for i in range(4):
        frequency = 10_000 ** (-i / 3)
        torch.testing.assert_close(waves[:, i], (frequency * labels).sin())
        torch.testing.assert_close(waves[:, 4 + i], (frequency * labels).cos())
    torch.manual_seed(0)
    fourier = FourierEmbedding(20_000)
    assert float(fourier.frequencies.std()) == pytest.approx(2 * math.pi * 16, rel=0.03)
    torch.testing.assert_close(fourier(labels).square().sum(1), torch.full((3,), 10_000.0))
    assert "frequencies" in fourier.state_dict()  # drawn, so a checkpoint must have them


@pytest.mark.parametrize("kind", ["ddpmpp", "ncsnpp"])
def test_every_input_matters_and_no_image_sees_another(kind):
    network, generator = tiny(kind, classes=4, augmentation=True), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    x, c, label = torch.randn(3, 1, 8, 8, generator=generator), torch.linspace(-1, 1, 3), torch.tensor([0, 1, 3])
    numbers = torch.randn(3, 9, generator=generator)
    out = network(x, c, label, numbers)
    out.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())] == []
    changed = [(x + 0.1, c, label, numbers), (x, c + 0.1, label, numbers), (x, c, (label + 1) % 4, numbers)]
    changed += [(x, c, torch.full((3,), -1), numbers), (x, c, label, numbers + 0.1), (x, c, label, None)]
    assert not any(torch.allclose(out, network(*arguments)) for arguments in changed)
    torch.testing.assert_close(network(x, c, label, None), network(x, c, label, 0 * numbers))
    torch.testing.assert_close(out[1:2], network(x[1:2], c[1:2], label[1:2], numbers[1:2]), rtol=1e-4, atol=1e-4)


def test_labels_are_refused_where_there_are_none():
    x, c = torch.zeros(2, 1, 8, 8), torch.zeros(2)
    with pytest.raises(ValueError, match="class labels"):
        tiny("ddpmpp")(x, c, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="class labels"):
        tiny("ddpmpp", classes=2)(x, c)
    with pytest.raises(ValueError, match="augmentation"):
        tiny("ddpmpp")(x, c, None, torch.zeros(2, 9))
