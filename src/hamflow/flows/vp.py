"""The noise levels of the variance preserving SDE, dx = -beta x / 2 ds + sqrt(beta) dw with beta = .1 + 19.9 s.

Its x_s / sqrt(alpha_s) is x_0 + sigma n with sigma^2 = 1/alpha_s - 1 and alpha_s = exp(-(19.9 s^2 / 2 + .1 s)).
Source: Song et al. 2021 (arXiv:2011.13456), in the form of Karras et al. 2022 (arXiv:2206.00364, table 1).
"""

import torch
from torch import Tensor

from hamflow.flows import HamiltonianFlow
from hamflow.flows.times import LAWS

BETA_SLOPE, BETA_START = 19.9, 0.1
EARLIEST = 1e-5  # s of the smallest noise that is trained, sigma = .001


def sigma_at(s: Tensor) -> Tensor:
    """The noise level at a time s of the SDE, in [0, 1]."""
    return torch.expm1(BETA_SLOPE * s.square() / 2 + BETA_START * s).sqrt()


def time_of(sigma: Tensor) -> Tensor:
    """The inverse of `sigma_at`: the positive root of 19.9 s^2 / 2 + .1 s = ln(1 + sigma^2)."""
    level = torch.log1p(sigma.square())
    return 2 * level / (BETA_START + torch.sqrt(BETA_START**2 + 2 * BETA_SLOPE * level))  # this form does not cancel near 0


@LAWS.register("vp")
def vp(flow: HamiltonianFlow, u: Tensor) -> Tensor:
    """The noise level that the variance preserving SDE has at a time s ~ U[1e-5, 1]; it lies between .001 and 152."""
    return flow.time(sigma_at(EARLIEST + (1 - EARLIEST) * u))
