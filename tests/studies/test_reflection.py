"""The exact velocity of the reflected checkerboard, run backwards."""

import math

import torch

from hamflow.laws.checkerboard import CheckerboardDensity
from hamflow.laws.reflected_checkerboard import HIGH, LOW
from hamflow.studies import reflection
from hamflow.studies.reflection import generate


def test_running_backwards_arrives_on_the_black_cells_in_equal_shares():
    frames = generate(2000)
    board = CheckerboardDensity()
    assert [len(frame) for frame in frames] == [2000] * len(reflection.FRAMES)
    assert all(bool((frame.abs() <= HIGH).all()) for frame in frames)
    assert float(board.support(frames[-1]).double().mean()) > 0.995
    cells = (frames[-1] - LOW).floor().clamp(max=3) @ torch.tensor([4.0, 1.0], dtype=torch.float64)
    shares = torch.bincount(cells.long(), minlength=16).double() / 2000
    black = shares[shares > 0.01]
    assert len(black) == 8
    assert ((black - 1 / 8).abs() < 5 * math.sqrt(1 / 8 * 7 / 8 / 2000)).all()
