"""Noise belongs to its sample."""

import math

import torch

from hamflow.sampling import unit_noise


def test_a_row_depends_on_its_seed_alone():
    together = unit_noise(range(5, 25), (3, 4))
    assert torch.equal(together[7], unit_noise([12], (3, 4))[0])
    assert torch.equal(together, torch.cat([unit_noise(range(5, 11), (3, 4)), unit_noise(range(11, 25), (3, 4))]))


def test_no_global_generator_is_touched():
    before = torch.random.get_rng_state()
    unit_noise(range(3), (2,))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_law_is_unit_normal_and_seeds_are_independent():
    noise = unit_noise(range(20_000), (4,))
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / math.sqrt(n)
    assert abs(float(noise.var()) - 1) < 4 * math.sqrt(2 / n)
    neighbours = (noise[1:] * noise[:-1]).mean()
    assert abs(float(neighbours)) < 4 / math.sqrt(n)


def test_no_seeds_no_rows():
    assert unit_noise([], (3, 2)).shape == (0, 3, 2)
