"""Gaussian teleportation: the first part of the way in closed form, as if the data were normal."""

from typing import NamedTuple

import torch
from torch import Tensor

from hamflow.errors import NotOffered
from hamflow.flows import GaussianFlow, HamiltonianFlow


class Teleport(NamedTuple):
    """A start of any sampler at a lower noise level than the horizon's.

    At high noise the score of the data is nearly that of N(mean, covariance), whose field is linear: it scales each principal
    direction k of x - a mean by the ratio of the standard deviations s_k(t), s_k^2 = a^2 lambda_k + b^2.

    Attributes:
        mean: [D], data units. values, axes: eigenvalues [D] and eigenvectors [D, D] of the covariance.
        sigma: noise level at which the sampler starts, data units.
    Source: arXiv:2412.09726; [derived] for other flows than diffusion.
    """

    mean: Tensor
    values: Tensor
    axes: Tensor
    sigma: float

    @classmethod
    def of(cls, data: Tensor, sigma: float) -> "Teleport":
        """From data [N, *dims], N >= 2, data units."""
        rows = data.flatten(1).double()
        values, axes = torch.linalg.eigh(rows.T.cov())
        return cls(rows.mean(0), values.clamp(min=0), axes, sigma)

    def time(self, flow: HamiltonianFlow) -> float:
        """t at which the sampler starts, at most the horizon."""
        return min(float(flow.time(torch.tensor(self.sigma, dtype=torch.float64))), flow.horizon)

    def __call__(self, flow: HamiltonianFlow, x: Tensor) -> Tensor:
        """The state at `time`, float64, from x_T, [N, *dims]. Raises NotOffered for a flow without normal noise."""
        if not isinstance(flow, GaussianFlow):
            raise NotOffered(f"flow '{flow.name}' has no normal noise, so a normal law does not stay normal in it")
        times = torch.tensor([flow.horizon, self.time(flow)], dtype=torch.float64, device=x.device)
        a, b, _, _ = flow.coefficients(times)
        mean, values, axes = (part.to(x.device) for part in self[:3])
        spread = (a[:, None] ** 2 * values + b[:, None] ** 2).sqrt()
        along = (x.double().flatten(1) - a[0] * mean) @ axes
        return (a[1] * mean + (along * spread[1] / spread[0]) @ axes.T).reshape(x.shape)
