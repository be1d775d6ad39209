"""StyleGAN2's networks: counts, modulation, equalised rates, resampling, groups."""

import math

import pytest
import torch
from torch.nn import functional

from hamflow.networks.equalised import Conv, Labels, Linear, MinibatchDeviation, doubled, halvings, normalised, smooth
from hamflow.networks.stylegan2 import (
    Mapping,
    ModulatedConv,
    PointDiscriminator,
    PointGenerator,
    StyleDiscriminator,
    StyleGenerator,
)

SMALL = {"base": 64, "widest": 16}


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def planes_of(generator, n):
    return [torch.randn(n, *shape) for shape in generator.planes]


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        (StyleGenerator, 0, 19_947_539),
        (StyleGenerator, 10, 20_215_315),
        (StyleDiscriminator, 0, 20_720_641),
        (StyleDiscriminator, 10, 23_089_664),
    ],
)
def test_the_defaults_have_the_published_numbers_of_parameters(network, classes, count, monkeypatch):
    """Configuration cifar of the official code, at 3 x 32 x 32."""
    monkeypatch.setattr(torch.Tensor, "normal_", lambda tensor, **_: tensor)  # nothing is drawn
    assert sum(weight.numel() for weight in network((3, 32, 32), classes).parameters()) == count


def grouped(layer, x, style):
    """The published form: a kernel of its own for each sample, all in one convolution with as many groups."""
    n, inward = style.shape
    weight = layer.weight[None] * style[:, None, :, None, None]
    if layer.demodulated:
        weight = weight / (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    x = x.reshape(1, -1, *x.shape[2:])
    if layer.up:
        kernel = weight.transpose(1, 2).reshape(n * inward, *weight.shape[1:2], *weight.shape[3:])
        x = functional.conv_transpose2d(x, kernel, stride=2, groups=n)
        x = x.view(n, -1, *x.shape[2:])
        return smooth(x, 1, gain=4.0)
    found = functional.conv2d(x, weight.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    return found.view(n, -1, *found.shape[2:])


@pytest.mark.parametrize(("kernel", "up", "demodulated"), [(3, False, True), (3, True, True), (1, False, False)])
def test_modulation_equals_the_grouped_form(kernel, up, demodulated):
    layer = ModulatedConv(6, 5, kernel, up, demodulated)
    x, style = torch.randn(4, 6, 7, 5), 1 + torch.randn(4, 6)
    torch.testing.assert_close(layer(x, style), grouped(layer, x, style), rtol=1e-5, atol=1e-5)


def test_demodulated_output_has_unit_variance():
    """Of independent inputs of unit variance: the squares of all weights of an output, seen by unit impulses, sum to one."""
    layer, style = ModulatedConv(6, 5, 3), torch.exp(torch.randn(1, 6))
    impulses = torch.zeros(6, 6, 5, 5)
    impulses[torch.arange(6), torch.arange(6), 2, 2] = 1
    energy = layer(impulses, style.expand(6, -1)).square().sum((0, 2, 3))
    torch.testing.assert_close(energy, torch.ones(5), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_adam_moves_what_a_layer_does_in_proportion_to_its_rate(rate):
    """A step of Adam changes each weight by the learning rate, so g W by g times it, whatever the initial weights."""
    layer = Linear(64, 8, bias=0.5, rate=rate)
    torch.testing.assert_close(layer(torch.zeros(1, 64)), torch.full((1, 8), 0.5))
    assert float((layer.gain * layer.weight).detach().std()) == pytest.approx(1 / 8, rel=0.1)  # 1/sqrt(inward), for every rate
    before = layer(torch.ones(1, 64)).detach()
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.99))
    layer(torch.ones(1, 64)).sum().backward()
    optimiser.step()
    moved = 1e-3 * (layer.gain * 64 + rate)  # of 64 weights, and of the bias
    torch.testing.assert_close(before - layer(torch.ones(1, 64)), torch.full((1, 8), moved), rtol=1e-2, atol=1e-6)


def test_doubling_keeps_what_is_constant_and_what_is_linear():
    """Within the edges, beyond which there are zeros: fine pixel n stands at (n - 1/2)/2."""
    rows = torch.arange(8.0)[:, None].expand(8, 8)
    fine = (torch.arange(16.0)[:, None].expand(16, 16) - 0.5) / 2
    found = doubled(torch.stack([torch.ones(8, 8), rows])[None])[0]
    inner = slice(2, -2)
    torch.testing.assert_close(found[0, inner, inner], torch.ones(12, 12))
    torch.testing.assert_close(found[1, inner, inner], fine[inner, inner])
    torch.testing.assert_close(smooth(torch.ones(1, 1, 8, 8), 2)[0, 0, 3:-3, 3:-3], torch.ones(3, 3))


def test_deviations_are_those_of_strided_groups():
    x = torch.randn(8, 3, 4, 4)
    plane = MinibatchDeviation(4)(x)[:, 3]
    for first in (0, 1):
        group = x[first::2].numpy()
        expected = float((group.var(axis=0) + 1e-8).__pow__(0.5).mean())
        torch.testing.assert_close(plane[first::2], torch.full((4, 4, 4), expected))
    assert torch.equal(MinibatchDeviation(4)(x[:3])[:, 3], torch.full((3, 4, 4), 1e-4))  # alone, each in its own group


def test_processes_that_share_a_batch_have_the_groups_of_one():
    """Process r of two has rows r, r + 2, ...: whole groups, if a group divides its rows."""
    discriminator, x = StyleDiscriminator((1, 8, 8), group=4, **SMALL), torch.randn(16, 1, 8, 8)
    whole = discriminator(x)
    for rank in (0, 1):
        torch.testing.assert_close(discriminator(x[rank::2]), whole[rank::2])
    assert not torch.allclose(discriminator(x[:3]), whole[:3])


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (1, 28, 28), (3, 16, 24), (1, 9, 7)])
@pytest.mark.parametrize("classes", [0, 3])
def test_images_of_any_size_are_made_and_judged(shape, classes):
    generator = StyleGenerator(shape, classes, latent=8, **SMALL)
    discriminator = StyleDiscriminator(shape, classes, layers=2, **SMALL)
    label = torch.tensor([0, 2, 1]) if classes else None
    z, planes = torch.randn(3, 8), planes_of(generator, 3)
    images = generator(z, label, planes)
    assert images.shape == (3, *shape)
    assert discriminator(images, label).shape == (3,)
    assert len(planes) == 1 + 2 * halvings(*shape[1:])
    torch.testing.assert_close(generator(z[1:], label if label is None else label[1:], [p[1:] for p in planes]), images[1:])
    if classes:
        assert not torch.allclose(generator(z, label.flip(0), planes)[0], images[0])
        assert not torch.allclose(discriminator(images, label.flip(0))[0], discriminator(images, label)[0])
        with pytest.raises(ValueError, match="class labels must be given"):
            generator(z, None, planes)


def test_noise_planes_begin_without_effect_and_are_seen_later():
    generator = StyleGenerator((1, 8, 8), latent=8, **SMALL)
    z = torch.randn(3, 8)
    first, second = planes_of(generator, 3), planes_of(generator, 3)
    assert torch.equal(generator(z, None, first), generator(z, None, second))
    with torch.no_grad():
        for name, weight in generator.named_parameters():
            if name.endswith("strength"):
                weight.fill_(0.1)
    assert not torch.allclose(generator(z, None, first), generator(z, None, second))


def test_a_latent_vector_and_a_label_count_by_their_direction():
    mapping = Mapping(8, 3, 2)
    z, label = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(mapping(z, label), mapping(7 * z, label), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normalised(z).square().mean(1), torch.ones(4))
    torch.testing.assert_close(Labels(3, 8)(label).square().mean(1), torch.ones(4), rtol=1e-4, atol=0)


def test_a_down_convolution_is_the_filter_before_a_strided_one():
    layer, x = Conv(2, 3, 3, down=True), torch.randn(1, 2, 8, 8)
    filtered = smooth(x, 2)
    expected = functional.conv2d(filtered, layer.weight / math.sqrt(18), stride=2)
    torch.testing.assert_close(layer(x), functional.leaky_relu(expected, 0.2) * math.sqrt(2))
    assert layer(x).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("classes", [0, 3])
def test_points_are_made_and_judged(classes):
    generator, discriminator = PointGenerator((2,), classes), PointDiscriminator((2,), classes)
    label = torch.tensor([0, 1, 2, 0]) if classes else None
    points = generator(torch.randn(4, 16), label)
    assert points.shape == (4, 2)
    assert discriminator(points, label).shape == (4,)
