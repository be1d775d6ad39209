"""A mixture of isotropic Gaussians in the plane."""

from collections.abc import Sequence

from hamflow.data.sources import Rows, Seed, Source, points_of, register
from hamflow.errors import ConfigurationError
from hamflow.laws.mixtures import GaussianMixture
from hamflow.registry import Positive

MEANS = ((1.5, 0.0), (-1.0, 1.3), (-1.0, -1.3))
SDS = (0.6, 0.6, 0.6)
WEIGHTS = (0.4, 0.3, 0.3)
REACH = 6.0  # standard deviations: 2e-9 of the mass lies beyond


@register("gaussian_mixture")
def gaussian_mixture(
    count: Rows = 50000,
    seed: Seed = 0,
    means: Sequence[Sequence[float]] = MEANS,
    sds: Sequence[Positive] = SDS,
    weights: Sequence[Positive] = WEIGHTS,
) -> Source:
    """sum_k w_k N(m_k, s_k^2 I); the default has three components of Fisher information 4.67.

    Args:
        count: points to draw.
        seed: of the draw.
        means, sds, weights: m [K][D], s [K] > 0, w [K] > 0 with sum 1.
    Raises:
        ConfigurationError: values that define no such law.
    """
    try:
        density = GaussianMixture(weights, means, sds)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"options `means`, `sds`, `weights` of gaussian_mixture: {error}",
            fix="give the three together, as [[x, y], ...], [s, ...], [w, ...], or none of them",
        ) from error
    edge = float((density.means.abs() + REACH * density.sds).max())
    return points_of(density, count=count, seed=seed, box=(-edge, edge), origin="drawn from its density")
