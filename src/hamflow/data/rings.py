"""Points on two concentric rings."""

from collections.abc import Sequence

from hamflow.data.sources import Rows, Seed, Source, points_of, register
from hamflow.errors import ConfigurationError
from hamflow.laws.rings import RingsDensity
from hamflow.registry import Positive

REACH = 6.0  # standard deviations


@register("rings")
def rings(count: Rows = 50000, seed: Seed = 0, radii: Sequence[Positive] = (1.0, 3.0), sd: Positive = 0.2) -> Source:
    """Rings of equal peak height; the default, radii 1 and 3 with sd 0.2, has entropy 3.03367.

    Args:
        count: points to draw.
        seed: of the draw.
        radii: of the rings, > 0.
        sd: radial standard deviation, > 0 and at most the smallest radius.
    Raises:
        ConfigurationError: values that define no such law.
    """
    if not radii or not 0 < sd <= min(radii):
        raise ConfigurationError(f"options of rings: need 0 < sd <= every radius; got sd {sd}, radii {list(radii)}")
    edge = float(max(radii) + REACH * sd)
    return points_of(RingsDensity(radii, sd), count=count, seed=seed, box=(-edge, edge), origin="drawn from its density")
