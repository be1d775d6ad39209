"""Mixtures of Gaussians with full covariances, fitted to data: exact velocities under noise of any covariance."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hamflow.errors import ConfigurationError


class FullMixture:
    """The law sum_k w_k N(m_k, S_k) on R^D, in float64.

    Args:
        weights: w, [K], summing to one. means: m, [K, D], data units. covariances: S, [K, D, D], positive, data units squared.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor):
        self.weights, self.means, self.covariances = (part.double() for part in (weights, means, covariances))

    @classmethod
    def fit(cls, rows: np.ndarray, components: int, ridge: float, seed: int) -> "FullMixture":
        """Fitted by expectation maximisation.

        Args:
            rows: data, [N, D]. ridge: added to every variance, in units of the data's mean variance.
        Raises:
            ConfigurationError: fewer rows than two for each component, from which no covariance follows.
        """
        from sklearn.mixture import GaussianMixture

        if len(rows) < 2 * components:
            raise ConfigurationError(
                f"a mixture of {components} components needs at least {2 * components} samples, got {len(rows)}",
                why="a component of a single sample has no covariance, and the law would be that sample",
                fix="fewer `components`, or more data",
            )
        floor = ridge * float(rows.var(axis=0).mean())
        fitted = GaussianMixture(components, reg_covar=floor, random_state=seed, max_iter=200).fit(rows)
        return cls(*(torch.tensor(part) for part in (fitted.weights_, fitted.means_, fitted.covariances_)))

    @property
    def covariance(self) -> Tensor:
        """Cov[x], [D, D], data units squared: within plus between the components."""
        centred = self.means - self.weights @ self.means
        return torch.einsum("k,kij->ij", self.weights, self.covariances + centred[:, :, None] * centred[:, None, :])

    def velocity_under(self, flow: Any, root: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """V(x, t) = E[v_t | x_t = x] of a linear flow whose noise is R n, n ~ N(0, I), exact.

        In the coordinates z = Q_k^T R^-1 x the component k and the noise are both diagonal [theory 4.7].

        Args:
            root: R, [D, D], symmetric and positive.
        Returns: a function of x, float64 [N, D], and a scalar t.
        """
        inverse = torch.linalg.inv(root)
        spectra, vectors = torch.linalg.eigh(inverse @ self.covariances @ inverse)  # [K, D], [K, D, D]
        inward, outward = inverse @ vectors, root @ vectors
        means = torch.einsum("ki,kij->kj", self.means, inward)
        count, dims = self.means.shape
        inward = inward.permute(1, 0, 2).reshape(dims, -1)
        outward = outward.permute(0, 2, 1).reshape(-1, dims)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            a, b, a_dot, b_dot = (float(part) for part in flow.coefficients(torch.as_tensor(t, dtype=torch.float64)))
            z = (x @ inward).reshape(len(x), count, dims) - a * means
            total = a * a * spectra + b * b
            joint = self.weights.log() - (total.log().sum(1) + (z.square() / total).sum(2)) / 2
            posterior = joint.softmax(1)
            inner = (a * a_dot * spectra + b * b_dot) / total * z * posterior[..., None]
            return a_dot * (posterior @ self.means) + inner.reshape(len(x), -1) @ outward

        return velocity
