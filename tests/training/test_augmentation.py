"""Augmentation: each change against its formula, the numbers that describe it, and that samples show none of it."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from hamflow.draws import BatchDraws
from hamflow.methods.base import METHODS, Facts
from hamflow.networks.song import AUGMENTATION_LABELS
from hamflow.training.augmentation import NUMBERS, Transforms, resampled
from hamflow.training.fit import Batch
from hamflow.training.warp import CENTRE, SYM6

TAPS = np.array(SYM6)
DELAY = (np.arange(12) @ TAPS / TAPS.sum() - CENTRE) / 2  # pixels by which the filter is off its nominal centre
ROUNDING = 3e-5  # of float32 positions


def images(n=3, height=8, width=6):
    return torch.randn(n, 2, height, width, generator=torch.Generator().manual_seed(0))


def transforms(n=3, **values):
    """The same change of n images; zero where nothing is said."""
    kinds = {name: torch.zeros(n, 2) if name == "shift" else torch.zeros(n) for name in Transforms._fields}
    return Transforms(**kinds | {name: torch.tensor(value).expand(kinds[name].shape) for name, value in values.items()})


def drawn(n=1000, probability=1.0):
    return Transforms.drawn(BatchDraws(0, "test", batch=n), probability)


def test_the_filter_is_orthonormal_and_passes_polynomials():
    """These equations, with the choice of zeros that makes it least asymmetric, determine sym6."""
    shifted = [TAPS[: 12 - 2 * k] @ TAPS[2 * k :] for k in range(6)]
    np.testing.assert_allclose(shifted, [1, 0, 0, 0, 0, 0], atol=1e-11)
    signs, places = (-1.0) ** np.arange(12), np.arange(12) - 5.5
    np.testing.assert_allclose([signs * places**k @ TAPS for k in range(6)], 0, atol=1e-9)
    assert TAPS.sum() == pytest.approx(math.sqrt(2))


def test_nothing_done_is_nothing_changed():
    x = images()
    assert torch.equal(transforms()(x), x)
    same = resampled(x, torch.eye(2).expand(3, 2, 2), torch.zeros(3, 2))
    torch.testing.assert_close(same, x, rtol=0, atol=ROUNDING)


def test_mirroring_and_flipping_are_exact():
    x = images()
    assert torch.equal(transforms(mirror=1.0)(x), x.flip(3))
    assert torch.equal(transforms(flip=1.0)(x), x.flip(2))
    some = transforms()._replace(mirror=torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(some(x), torch.stack([x[0], x[1].flip(2), x[2]]))


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -2), (3, 5), (-5, -7)])
def test_a_shift_by_whole_pixels_is_exact(right, down):
    """What enters is the mirror image, as numpy's padding has it."""
    x = images()
    found = transforms(shift=[right / (0.125 * 6), down / (0.125 * 8)])(x)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (7, 7), (5, 5)), mode="reflect")
    expected = padded[:, :, 7 - down : 15 - down, 5 - right : 11 - right]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_quarter_turns_are_exact_but_for_the_asymmetry_of_the_filter(quarters):
    """A turned axis is doubled by the filter and halved by its mirror image: their product is a short filter g."""
    g = np.array([sum(TAPS[j] * TAPS[10 - j + 2 * d] for j in range(12) if 0 <= 10 - j + 2 * d < 12) for d in range(-5, 7)])
    x = images(height=8, width=8)
    expected = np.rot90(x.numpy(), quarters, axes=(2, 3))
    reversed_axes = {1: [2], 2: [2, 3], -1: [3]}[quarters]
    for axis in reversed_axes:
        ends = [(5, 6) if i == axis else (0, 0) for i in range(4)]
        padded = np.pad(expected, ends, mode="reflect")
        expected = sum(weight * np.take(padded, np.arange(8) + d, axis) for d, weight in enumerate(g))
    found = transforms(angle=quarters * math.pi / 2)(x)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=ROUNDING)
    assert g[5] == pytest.approx(1, abs=0.04)  # nearly all of it is in its middle


def homogeneous(t, i, height, width):
    """The map from places of the changed image to places of the image, change by change as it was published."""

    def turn(w):
        return np.array([[math.cos(w), -math.sin(w), 0], [math.sin(w), math.cos(w), 0], [0, 0, 1]])

    w, axis, stretch = float(t.angle[i]), float(t.axis[i]), 2 ** (0.2 * float(t.stretch[i]))
    right, down = (float(value) for value in t.shift[i])
    g = np.diag([1 - 2 * float(t.mirror[i]), 1 - 2 * float(t.flip[i]), 1])
    g = g @ np.diag([2 ** (-0.2 * float(t.scale[i]))] * 2 + [1])
    g = g @ turn(w)
    g = g @ turn(-axis) @ np.diag([1 / stretch, stretch, 1]) @ turn(axis)
    return g @ np.array([[1, 0, -0.125 * width * right], [0, 1, -0.125 * height * down], [0, 0, 1]])


CHANGES = {
    "scale": transforms(1, scale=1.5),
    "turn": transforms(1, angle=0.7),
    "stretch": transforms(1, stretch=1.0),
    "stretch along another axis": transforms(1, stretch=1.0, axis=0.5),
    "shift": transforms(1, shift=[0.31, -0.17]),
    "all": transforms(1, mirror=1.0, flip=1.0, scale=1.0, angle=-2.0, stretch=-0.7, axis=1.1, shift=[0.4, 0.3]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wave_is_seen_where_the_published_map_puts_it(name):
    """Up to what reading between the pixels costs: (k/2)^2/8 a direction, and the delay of the filter, which turns, too."""
    t, height, width, k = CHANGES[name], 32, 40, np.array([0.23, 0.11])
    y, x = np.mgrid[:height, :width]
    places = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.ones(x.shape)])
    g = homogeneous(t, 0, height, width)
    sources = np.tensordot(g, places, 1)[:2]
    wave = torch.from_numpy(np.sin(np.tensordot(k, places[:2], 1) + 0.3)).float()
    found = t(wave[None, None])[0, 0].numpy()
    inside = (np.abs(sources[0]) < width / 2 - 6) & (np.abs(sources[1]) < height / 2 - 6)  # away from the mirrored rest
    assert inside.mean() > 0.2
    error = np.abs(found - np.sin(np.tensordot(k, sources, 1) + 0.3))[inside].max()
    delay = abs(DELAY) * np.abs(k) @ (1 + np.abs(g[:2, :2]).sum(1))
    assert error < (np.linalg.norm(k) / 2) ** 2 / 8 * 2 + delay
    moved = np.abs(found - np.sin(np.tensordot(k, places[:2], 1) + 0.3))[inside].max()
    assert moved > 3 * error


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"mirror": 1.0}, [1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ({"flip": 1.0}, [0, 1, 0, 0, 0, 0, 0, 0, 0]),
        ({"scale": -1.3}, [0, 0, -1.3, 0, 0, 0, 0, 0, 0]),
        ({"angle": 0.6}, [0, 0, 0, math.cos(0.6) - 1, math.sin(0.6), 0, 0, 0, 0]),
        ({"stretch": 0.8, "axis": 2.0}, [0, 0, 0, 0, 0, 0.8 * math.cos(2), 0.8 * math.sin(2), 0, 0]),
        ({"shift": [0.2, -0.4]}, [0, 0, 0, 0, 0, 0, 0, 0.2, -0.4]),
    ],
)
def test_the_network_is_told_what_was_done(values, numbers):
    found = transforms(2, **values).numbers()
    torch.testing.assert_close(found, torch.tensor([numbers, numbers], dtype=torch.float32))
    assert found.shape[1] == NUMBERS == AUGMENTATION_LABELS


@pytest.mark.parametrize("probability", [0.0, 0.12, 1.0])
def test_changes_occur_as_often_as_they_should(probability):
    """The draws are stratified: a share is right to one image."""
    n = 1000
    t = drawn(n, probability)
    share = {
        name: float((t.numbers()[:, column] != 0).float().mean())
        for column, name in {2: "scale", 4: "angle", 7: "shift"}.items()
    }
    assert share == pytest.approx(dict.fromkeys(share, probability), abs=1 / n)
    assert float(t.mirror.mean()) == pytest.approx(0.5, abs=1 / n)
    assert float(t.flip.mean()) == pytest.approx(probability / 2, abs=1 / n)
    assert float((t.stretch != 0).float().mean()) == pytest.approx(probability, abs=1 / n)
    assert bool(((t.axis == 0) | (t.stretch != 0)).all())
    x = images(n, 4, 4)
    untouched = (t.numbers()[:, 1:] == 0).all(1) & (t.mirror == 0)
    assert torch.equal(t(x)[untouched], x[untouched])
    assert not probability or not torch.equal(t(x)[~untouched], x[~untouched])


def test_parameters_have_their_laws():
    n = 4000
    t = drawn(n)
    for normal in (t.scale, t.stretch, *t.shift.unbind(1)):
        assert float(normal.mean()) == pytest.approx(0, abs=4 / math.sqrt(n))
        assert float(normal.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / n))
    angles = t.angle.sort().values
    assert float((angles - torch.linspace(-math.pi, math.pi, n)).abs().max()) < 2 * math.pi / n * 2  # stratified
    turned = t.axis[t.axis != 0]
    assert len(turned) == pytest.approx(n / 2, abs=1)
    assert float(turned.var()) == pytest.approx(math.pi**2 / 3, rel=0.1)
    pairs = torch.corrcoef(torch.stack([t.mirror, t.flip, t.scale, t.angle, t.stretch, t.axis, *t.shift.unbind(1)]))
    assert float((pairs - torch.eye(8)).abs().max()) < 5 / math.sqrt(n)  # independent of each other


def test_a_part_of_a_batch_is_changed_as_within_the_whole():
    x, draws = images(12), BatchDraws(0, "test", batch=12)
    whole = Transforms.drawn(draws, 0.5)
    for start, stop in pairwise((0, 5, 12)):
        part = Transforms.drawn(draws.part(slice(start, stop)), 0.5)
        assert torch.equal(part.numbers(), whole.numbers()[start:stop])
        torch.testing.assert_close(part(x[start:stop]), whole(x)[start:stop], rtol=0, atol=1e-6)


def test_a_training_sees_the_changed_images_with_their_own_numbers(monkeypatch):
    """First plain mirroring, then the changes: x_t is made of them, and nothing of the batch itself is altered."""
    network = {"kind": "ddpmpp", "channels": 4, "multipliers": [1], "blocks": 1, "attention": [], "augmentation": True}
    facts = Facts(name="x", shape=(2, 8, 6), classes=0, sigma_data=1.0, box=(-9.0, 9.0), network=network)
    options = {"flow": {"name": "diffusion"}, "parameterisation": "edm", "times": {"law": "uniform"}}
    objective = METHODS.build("velocity", **options, augmentation=0.7, mirror=True).objective(facts, {}, 0)
    seen, kept = {}, images(5)
    monkeypatch.setattr(
        objective.field.flow, "push", lambda x0, v0, t: seen.update(x0=x0) or (x0 + t[:, None, None, None] * v0, v0)
    )
    monkeypatch.setattr(objective.field.network, "forward", lambda *given: seen.update(numbers=given[3]) or 0 * given[0])
    draws = BatchDraws(0, "test", batch=5)
    objective.losses("velocity", Batch(kept, None, 0, draws, objective))
    mirrored = torch.where((draws.uniform("mirror") < 0.5)[:, None, None, None], images(5).flip(3), images(5))
    expected = Transforms.drawn(draws, 0.7)
    assert torch.equal(seen["x0"], expected(mirrored))
    assert torch.equal(seen["numbers"], expected.numbers())
    assert torch.equal(kept, images(5))
