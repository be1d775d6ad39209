"""Points on the checkerboard."""

from hamflow.data.sources import Rows, Seed, Source, points_of, register
from hamflow.laws.checkerboard import HALF, CheckerboardDensity


@register("checkerboard")
def checkerboard(count: Rows = 50000, seed: Seed = 0) -> Source:
    """Uniform on the black cells of the 4 x 4 board in [-2, 2]^2; the box is the state space of reflection.

    Args:
        count: points to draw.
        seed: of the draw.
    """
    box = (-float(HALF), float(HALF))
    return points_of(CheckerboardDensity(), count=count, seed=seed, box=box, origin="drawn from its density")
