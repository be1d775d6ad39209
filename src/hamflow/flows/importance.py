"""Laws of training times by importance, of LSGM (Vahdat, Kreis, Kautz 2021, arXiv:2106.05931).

With s^2 = sigma^2 / (1 + sigma^2), the share of noise in a variance preserving x_t, and eps the prediction of the noise n, LSGM
minimises int_e^1 w(s) E|n - eps|^2 ds over the time of the variance preserving SDE. Each law here has a density proportional to
(1 - s^2) w(s), so that the loss at a drawn time has the weight c / (1 - s^2) = c (1 + sigma^2) (theory 4.9).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hamflow.flows import HamiltonianFlow
from hamflow.flows.times import LAWS
from hamflow.flows.vp import BETA_SLOPE, BETA_START, sigma_at

EARLIEST = 0.01  # e, the time of the SDE at which the integral begins


class Importance(NamedTuple):
    """A law of times for one weighting.

    Attributes:
        sigma: uniform numbers in (0, 1) -> noise levels. constant: c, by which int w E|n - eps|^2 ds is the mean over drawn
            times of c (1 + sigma^2) E|n - eps|^2.
    """

    sigma: Callable[[Tensor], Tensor]
    constant: float


def _share(time: float) -> float:
    """s^2 at a time of the SDE."""
    return float(-torch.expm1(-torch.log1p(sigma_at(torch.tensor(time, dtype=torch.float64)).square())))


def _of_share(share: Tensor) -> Tensor:
    """sigma from s^2."""
    return (share / (1 - share)).sqrt()


LOW, HIGH = _share(EARLIEST), _share(1.0)
MEAN, DEVIATION = -BETA_START / BETA_SLOPE, BETA_SLOPE**-0.5  # 1 - s^2 is a normal density in the time, up to a factor
FIRST, LAST = (math.erf((time - MEAN) / DEVIATION / math.sqrt(2)) for time in (EARLIEST, 1.0))


def _likelihood(u: Tensor) -> Tensor:
    """w = beta / (2 s^2), of the cross entropy: ln s^2 uniform."""
    return _of_share(LOW * (HIGH / LOW) ** u)


def _unweighted(u: Tensor) -> Tensor:
    """w = 1: a truncated normal law of the time."""
    return sigma_at(MEAN + DEVIATION * math.sqrt(2) * torch.erfinv(FIRST + (LAST - FIRST) * u))


def _variance(u: Tensor) -> Tensor:
    """w = beta / 2: s^2 uniform."""
    return _of_share(LOW + (HIGH - LOW) * u)


# int (1 - s^2) ds = e^(mean^2 / 2 deviation^2) sqrt(2 pi) deviation P(e < normal < 1); the others by substitution
_AREA = math.exp((MEAN / DEVIATION) ** 2 / 2) * math.sqrt(math.pi / 2) * DEVIATION * (LAST - FIRST)
IMPORTANCE = {
    "likelihood": Importance(_likelihood, math.log(HIGH / LOW) / 2),
    "unweighted": Importance(_unweighted, _AREA),
    "variance": Importance(_variance, (HIGH - LOW) / 2),
}


@LAWS.register("importance_likelihood")
def importance_likelihood(flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """For the weight beta / (2 s^2), with which the loss is a cross entropy: ln s^2 uniform."""
    return flow.time(_likelihood(u))


@LAWS.register("importance_unweighted")
def importance_unweighted(flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """For the weight 1 ("drop all"): the time of the SDE truncated normal."""
    return flow.time(_unweighted(u))


@LAWS.register("importance_variance")
def importance_variance(flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """For the weight beta / 2 ("drop sigma^2"): s^2 uniform."""
    return flow.time(_variance(u))
