"""The warp and the augmentations: identities, references of numpy, scipy and Pillow, derivatives, laws."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hamflow.draws import BatchDraws
from hamflow.training.ada import COLOUR, GEOMETRY, GREYS, HALVED, TRANSFORMS, augment, drawn, recolour
from hamflow.training.warp import SYM6, bilinear, warp

SIDE = 32
CPU = torch.device("cpu")


class Fixed:
    """A draw that gives the same numbers to every row: for names that end so, {ending: number or numbers}."""

    def __init__(self, n, **values):
        self.n, self.values = n, values

    def uniform(self, name):
        ending = name.rpartition(".")[2]
        return torch.full((self.n,), 0.5 if ending == "active" else self.values[ending], dtype=torch.float64)

    def normal(self, name, shape):
        return torch.tensor(self.values["normal"]).float().expand(self.n, *shape)


def matrix_of(name, size=(SIDE, SIDE), **values):
    return drawn(name, size, Fixed(1, **values), "x", torch.tensor(1.0), CPU)


def smooth_images(channels=1, side=SIDE):
    """Noise without detail finer than a few pixels, in [-1, 1]."""
    noise = np.random.default_rng(0).standard_normal((channels, side, side))
    found = np.stack([ndimage.gaussian_filter(one, 2.5, mode="mirror") for one in noise])
    return torch.from_numpy(found / np.abs(found).max())[None]


def reference(image, name, **values):
    """The transform by scipy, with the mirror image beyond the edges. Rows come first there, columns second."""
    inverse = matrix_of(name, **values)[0].double().numpy()
    swapped = inverse[[1, 0, 2]][:, [1, 0, 2]]
    middle = (SIDE - 1) / 2
    linear, offset = swapped[:2, :2], swapped[:2, 2]
    return ndimage.affine_transform(image, linear, middle + offset - linear @ np.full(2, middle), order=5, mode="mirror")


def test_the_filter_is_the_orthonormal_wavelet_with_six_vanishing_moments():
    h, k = np.array(SYM6), np.arange(12)
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-12)
    products = [h[: 12 - 2 * j] @ h[2 * j :] for j in range(6)]
    assert products == pytest.approx([1, 0, 0, 0, 0, 0], abs=1e-11)
    assert [((-1.0) ** k * (k / 11) ** m) @ h for m in range(6)] == pytest.approx([0] * 6, abs=1e-11)
    assert h.argmax() == 5


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 5, 12), (1, 4, 4)])
def test_nothing_moved_is_the_identity(shape):
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp(x, torch.eye(3).expand(4, 3, 3)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 4)])
def test_a_shift_by_whole_pixels_is_exact_whatever_the_image(right, down):
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inverse = torch.tensor([[1.0, 0, -right], [0, 1, -down], [0, 0, 1]])
    expected = ndimage.shift(x[0, 0].numpy(), (down, right), order=0, mode="mirror")
    torch.testing.assert_close(warp(x, inverse[None])[0, 0], torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_a_gather_is_torch_s_grid_sample():
    x = torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    place = 5 * torch.randn(2, 2, 40, generator=torch.Generator().manual_seed(1))
    grid = (2 * place / torch.tensor([9.0, 6.0])[:, None]).transpose(1, 2)[:, None]
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=False)[:, :, 0]
    torch.testing.assert_close(bilinear(x, place), expected, rtol=1e-5, atol=1e-5)


CASES = {
    "flip": {"side": 0.75},
    "quarter": {"turns": 0.3},
    "hop": {"x": 0.9, "y": 0.2},
    "scale": {"normal": [0.7]},
    "rotate_before": {"angle": 0.6},
    "stretch": {"normal": [-0.9]},
    "rotate_after": {"angle": 0.1},
    "shift": {"normal": [0.4, -0.3]},
}


@pytest.mark.parametrize("name", CASES)
def test_each_geometric_transform_is_scipy_s(name):
    x = smooth_images()
    found = warp(x, matrix_of(name, **CASES[name]))
    expected = reference(x[0, 0].numpy(), name, **CASES[name])
    assert np.abs(found[0, 0].numpy() - expected).max() < 0.03
    assert np.abs(x[0, 0].numpy() - expected).max() > 0.3


def test_flips_quarters_and_sizes_are_pillow_s_and_numpy_s():
    """Directions, which a reference that takes the matrix itself cannot tell."""
    x = smooth_images()
    pixels = Image.fromarray(x[0, 0].numpy().astype(np.float32))

    def close(name, expected, **values):
        found = warp(x, matrix_of(name, **values))[0, 0].numpy()
        assert np.abs(found - np.asarray(expected)).max() < 0.03

    close("flip", pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT), side=0.9)
    close("flip", pixels, side=0.1)
    for turns in range(4):
        close("quarter", np.rot90(x[0, 0].numpy(), -turns), turns=(turns + 0.5) / 4)
    close("rotate_after", pixels.transpose(Image.Transpose.ROTATE_270), angle=0.75)  # by pi/2 clockwise, as y goes down
    for normal in (-2.0, 2.0):  # twice the size, cropped, is the middle half
        size = 2 ** (0.2 * normal)
        box = [SIDE / 2 - SIDE / 2 / size, SIDE / 2 + SIDE / 2 / size] if size > 1 else None
        if box:
            enlarged = pixels.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(box[0], box[0], box[1], box[1]))
            close("scale", enlarged, normal=[normal])
    matrix = matrix_of("stretch", normal=[1.0])[0]
    assert float(matrix[0, 0]) < 1 < float(matrix[1, 1])  # wider and flatter
    assert float(matrix.det()) == pytest.approx(1)
    matrix = matrix_of("shift", normal=[1.0, 1.0])[0]
    assert matrix[:2, 2].tolist() == [-SIDE / 8, -SIDE / 8]  # to the right and down


def test_colour_transforms_are_their_formulas():
    """Brightness and contrast by Pillow, hue by a rotation vector, the others by the grey part and the rest."""
    x = smooth_images(3)
    pixels, rows = x[0].permute(1, 2, 0).numpy(), x[0].flatten(1).T.numpy()
    axis = np.ones(3) / math.sqrt(3)
    grey = rows @ np.outer(axis, axis)

    def close(name, expected, **values):
        found = recolour(x, matrix_of(name, **values))[0].flatten(1).T.numpy()
        assert np.abs(found - expected).max() < 1e-6

    for name, normal, (factor, term) in (("brightness", 0.8, (1, 0.16)), ("contrast", 1.5, (2**0.75, 0))):
        channels = [
            Image.fromarray(pixels[..., c].astype(np.float32)).point(lambda v, f=factor, t=term: v * f + t) for c in range(3)
        ]
        close(name, np.stack([np.asarray(c).ravel() for c in channels], 1), normal=[normal])
    close("luma", rows - 2 * grey, side=0.9)
    close("luma", rows, side=0.1)
    close("hue", Rotation.from_rotvec(math.pi * (2 * 0.7 - 1) * axis).apply(rows), angle=0.7)
    close("saturation", grey + 2**0.6 * (rows - grey), normal=[0.6])


@pytest.mark.parametrize("name", GREYS)
def test_grey_images_are_three_equal_channels_and_their_mean(name):
    x = smooth_images()
    matrix = matrix_of(name, normal=[0.7], side=0.8)
    coloured = recolour(x.expand(1, 3, -1, -1), matrix)
    torch.testing.assert_close(recolour(x, matrix), coloured.mean(1, keepdim=True))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_at_p_zero_every_transform_is_the_identity_and_at_p_one_none_but_by_chance(name):
    draw, eye = BatchDraws(0, "ada", batch=64), torch.eye(4 if name in COLOUR else 3)
    assert torch.equal(drawn(name, (SIDE, SIDE), draw, "x", torch.tensor(0.0), CPU), eye.expand(64, *eye.shape))
    always = (drawn(name, (SIDE, SIDE), draw, "x", torch.tensor(1.0), CPU) != eye).flatten(1).any(1)
    by_chance = {"flip": 0.5, "quarter": 0.75, "luma": 0.5}.get(name, 1.0)
    assert float(always.double().mean()) == pytest.approx(by_chance, abs=0.02 if by_chance < 1 else 0.03)
    beyond = drawn(name, (SIDE, SIDE), draw, "x", torch.tensor(7.0), CPU)  # p has no upper bound
    assert torch.equal(beyond, drawn(name, (SIDE, SIDE), draw, "x", torch.tensor(1.0), CPU))


def test_each_transform_is_active_with_probability_p_and_one_of_the_two_rotations_also():
    draw, eye = BatchDraws(0, "ada", batch=4000), torch.eye(3)
    active = {
        name: (drawn(name, (8, 8), draw, "x", torch.tensor(0.3), CPU) != eye).flatten(1).any(1).double() for name in GEOMETRY
    }
    for name in set(GEOMETRY) - HALVED:
        assert float(active[name].mean()) == pytest.approx(0.3, abs=1e-3)  # the numbers are stratified
    either = torch.maximum(*(active[name] for name in sorted(HALVED)))
    assert float(either.mean()) == pytest.approx(0.3, abs=3 * math.sqrt(0.21 / 4000))


@pytest.mark.parametrize("pipe", ["none", "b", "bg", "bgc"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pipe_at_p_zero_is_the_identity(pipe, channels):
    x = torch.rand(6, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draw = BatchDraws(0, "ada", batch=6)
    torch.testing.assert_close(augment(x, draw, "x", torch.tensor(0.0), pipe), x, rtol=0, atol=2e-6)
    changed = augment(x, draw, "x", torch.tensor(1.0), pipe)
    assert torch.equal(changed, x) == (pipe == "none")
    assert changed.shape == x.shape


def test_data_and_samples_are_changed_by_numbers_of_their_own_whatever_the_part_of_the_batch():
    x, p = smooth_images(side=8).float().expand(6, -1, -1, -1), torch.tensor(1.0)
    draw = BatchDraws(0, "ada", batch=6)
    whole = augment(x, draw, "real", p, "bgc")
    assert not torch.allclose(whole, augment(x, draw, "fake", p, "bgc"))
    torch.testing.assert_close(augment(x[1::2], draw.part(slice(1, 6, 2)), "real", p, "bgc"), whole[1::2])


def test_the_pipe_can_be_differentiated_twice():
    """Against differences, in float64: through a function that bends, as a discriminator is."""
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    draw = BatchDraws(0, "ada", batch=2)

    def bent(x):
        return torch.sin(3 * augment(x, draw, "x", torch.tensor(1.0), "bgc")).square().sum((1, 2, 3))

    assert torch.autograd.gradcheck(bent, x)
    assert torch.autograd.gradgradcheck(bent, x)


def test_images_with_and_without_a_gradient_are_read_alike():
    x = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    place = 3 * torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = bilinear(x, place)
    torch.testing.assert_close(found, bilinear(x, place), rtol=0, atol=1e-5)
