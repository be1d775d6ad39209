"""The energy distance as a loss: without bias, zero for equal laws alone, of images as they are stored."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from hamflow.errors import ConfigurationError
from hamflow.metrics.kernel import squared_mmd
from hamflow.training.energy import EnergyDistance


def normal(seed, *size):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size)).float()


def test_on_the_line_it_is_scipys_but_for_the_pairs_of_a_sample_with_itself():
    x, y, n = 1 + 2 * normal(0, 500, 1), normal(1, 500, 1), 500
    own, unit = (float((one - one.T).abs().sum()) / (n * (n - 1)) for one in (x, y))
    expected = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy()) ** 2 - (own + unit) / n
    assert float(EnergyDistance((1,))(x, y).mean()) * unit == pytest.approx(expected, rel=1e-4)


def test_it_is_the_discrepancy_of_the_kernel_that_is_minus_the_distance():
    """Of each map, by the numpy of the metrics, in units of the mean distance of two data."""
    distance, x, y = EnergyDistance((1, 8, 8)), normal(0, 20, 1, 8, 8) / 2, normal(1, 20, 1, 8, 8) / 3
    expected = 0.0
    for a, b in zip(distance.maps(x), distance.maps(y), strict=True):
        unit = pdist(b.numpy()).mean()
        expected += squared_mmd(a.numpy(), b.numpy(), lambda p, q: -cdist(p, q)) / unit
    assert float(distance(x, y).mean()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(2,), (1, 6, 5)])
def test_between_equal_laws_it_is_zero_in_the_mean_however_small_the_batch(shape):
    distance = EnergyDistance(shape)
    found = [float(distance(normal(2 * k, 6, *shape), normal(2 * k + 1, 6, *shape)).mean()) for k in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / len(found) ** 0.5


def test_strokes_are_seen_where_pixels_are_alike():
    """Stripes across and stripes along: each pixel alone has one of two values equally often in both."""
    rows = (normal(0, 400, 1, 8, 1) > 0).float().expand(-1, -1, -1, 8) - 0.5
    columns = (normal(1, 400, 1, 1, 8) > 0).float().expand(-1, -1, 8, -1) - 0.5
    again = (normal(2, 400, 1, 8, 1) > 0).float().expand(-1, -1, -1, 8) - 0.5
    distance = EnergyDistance((1, 8, 8))
    maps = [distance._distance(a, b).mean() for a, b in zip(distance.maps(columns), distance.maps(rows), strict=True)]
    same = [distance._distance(a, b).mean() for a, b in zip(distance.maps(again), distance.maps(rows), strict=True)]
    assert all(other > 10 * abs(one) for one, other in zip(same[1:], maps[1:], strict=True))


def test_images_are_compared_as_they_are_stored():
    distance, x, y = EnergyDistance((3, 16, 16), (-1.0, 1.0)), 2 * normal(0, 8, 3, 16, 16), normal(1, 8, 3, 16, 16)
    assert torch.equal(distance(x, y), distance(x.clamp(-1, 1), y.clamp(-1, 1)))


def test_samples_that_coincide_have_a_gradient():
    x = torch.zeros(4, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(EnergyDistance((2,))(x, normal(0, 4, 2)).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_no_checkpoint_holds_what_can_be_drawn_again():
    first, again = EnergyDistance((1, 8, 8)), EnergyDistance((1, 8, 8))
    assert first.state_dict() == {}
    assert torch.equal(first.kernel2, again.kernel2)


def test_one_sample_has_no_law():
    with pytest.raises(ConfigurationError, match="microbatch"):
        EnergyDistance((2,))(normal(0, 1, 2), normal(1, 1, 2))
