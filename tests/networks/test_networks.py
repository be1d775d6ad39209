"""Networks: shapes, conditioning, beginnings, refusals."""

import pytest
import torch

from hamflow import networks
from hamflow.errors import ConfigurationError
from hamflow.networks.embeddings import NoiseEmbedding, neumann_features

UNET = {"kind": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "dropout": 0.0}
MLP = {"kind": "mlp", "width": 16, "depth": 2, "features": 3}
CASES = [
    pytest.param(UNET, (1, 8, 8), id="unet8"),
    pytest.param({**UNET, "multipliers": [1, 1, 2], "blocks": 2, "attention": []}, (3, 32, 32), id="unet32"),
    pytest.param({**UNET, "multipliers": [1, 1, 1, 1], "attention": [16, 8]}, (3, 64, 64), id="unet64"),
    pytest.param(MLP, (2,), id="mlp"),
    pytest.param({**MLP, "features": 0}, (5,), id="mlp-plain"),
]


def build(spec, shape, classes=0):
    torch.manual_seed(0)
    return networks.build(spec, shape, classes)


def arguments(shape, n=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape, generator=generator), torch.linspace(-1.5, 1, n)


def perturb(network):
    """Random parameters everywhere, so that zero initialisation hides nothing."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_the_output_is_shaped_like_the_input_and_begins_at_zero(spec, shape):
    network, (x, c) = build(spec, shape), arguments(shape)
    assert network(x, c).shape == x.shape
    assert not bool(network(x, c).any())


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_samples_do_not_see_each_other(spec, shape):
    network, (x, c) = perturb(build(spec, shape)), arguments(shape)
    torch.testing.assert_close(network(x, c)[1:2], network(x[1:2], c[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_every_parameter_position_noise_level_and_class_matter(spec, shape):
    network, (x, c) = perturb(build(spec, shape, classes=4)), arguments(shape)
    labels = torch.tensor([0, 1, 3])
    out = network(x, c, labels)
    out.square().sum().backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None or not bool((p.grad != 0).any())}
    assert unused == set()
    assert not torch.allclose(out, network(x, c + 0.1, labels))
    assert not torch.allclose(out, network(x, c, (labels + 1) % 4))
    assert not torch.allclose(out, network(x + 0.1, c, labels))


@pytest.mark.parametrize(("spec", "shape"), CASES)
def test_labels_are_given_exactly_when_they_are_wanted(spec, shape):
    x, c = arguments(shape)
    with pytest.raises(ValueError, match="class labels"):
        build(spec, shape, classes=4)(x, c)
    with pytest.raises(ValueError, match="class labels"):
        build(spec, shape)(x, c, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({**UNET, "multipliers": [1, 1, 1]}, (1, 10, 10), "halved 2 times"),
        ({**UNET, "attention": [5]}, (1, 8, 8), r"resolutions are \[8, 4\]"),
        (MLP, (1, 8, 8), "`network`: ddpmpp or ncsnpp or unet"),
        (UNET, (2,), "`network`: mlp"),
        ({**MLP, "kind": "mpl"}, (2,), "Did you mean 'mlp'"),
        ({**MLP, "widht": 3}, (2,), "Did you mean 'width'"),
    ],
)
def test_what_cannot_be_built_is_refused(spec, shape, message):
    with pytest.raises(ConfigurationError, match=message):
        networks.build(spec, shape)


def test_neumann_features_have_no_slope_or_no_value_at_the_walls():
    walls = torch.tensor([[-2.0], [2.0]], dtype=torch.float64, requires_grad=True)
    sines, cosines = neumann_features(walls, 4, 2.0).chunk(2, dim=1)
    torch.testing.assert_close(sines.detach(), torch.zeros(2, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(cosines.sum(), walls)
    torch.testing.assert_close(slope, torch.zeros(2, 1, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_noise_embedding_tells_close_levels_apart():
    levels = torch.linspace(0.002, 80, 2).log() / 4
    labels = torch.linspace(float(levels[0]), float(levels[1]), 200)
    embedded = NoiseEmbedding(64)(labels)
    distance = torch.cdist(embedded, embedded) + 10 * torch.eye(200)
    assert float(distance.min()) > 0.3
