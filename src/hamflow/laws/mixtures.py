"""Mixtures of Gaussians: the data laws for which density, score, denoiser and quantiles have closed forms."""

import math
from collections.abc import Callable
from typing import Any

import torch


class GaussianMixture:
    """The law sum_k w_k N(m_k, diag(s_k^2)) on R^D, in float64.

    Args:
        weights: w, [K], positive, summing to one.
        means: m, [K, D], data units; [K] is read as [K, 1].
        sds: standard deviations s, [K] (the same in each dimension) or [K, D], data units, > 0.
    Raises:
        ValueError: weights that are no law, standard deviations that are not positive, shapes that disagree.
    """

    bounded = False

    def __init__(self, weights, means, sds):
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        means = torch.as_tensor(means, dtype=torch.float64)
        sds = torch.as_tensor(sds, dtype=torch.float64)
        self.means = means[:, None] if means.ndim == 1 else means
        self.sds = (sds[:, None] if sds.ndim == 1 else sds).expand(self.means.shape)
        if self.weights.shape != self.means.shape[:1]:
            raise ValueError(f"{len(self.weights)} weights for {len(self.means)} means")
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-9:
            raise ValueError(f"weights must be positive and sum to 1, got {self.weights.tolist()}")
        if not (self.sds > 0).all():
            raise ValueError(f"standard deviations must be positive, got {sds.tolist()}")

    @property
    def dimension(self) -> int:
        """D."""
        return self.means.shape[1]

    @property
    def mean(self) -> torch.Tensor:
        """E[x], [D], data units."""
        return self.weights @ self.means

    @property
    def variance(self) -> torch.Tensor:
        """Var[x] of each coordinate, [D], data units squared: within plus between the components."""
        return self.weights @ (self.sds.square() + (self.means - self.mean).square())

    def log_prob(self, x) -> torch.Tensor:
        """Log-density of x, [N, D] -> [N], nats."""
        return self._log_joint(_points(x), self.sds, self.means).logsumexp(1)

    def support(self, x) -> torch.Tensor:
        """Everywhere, [N, D] -> bool [N]."""
        return torch.ones(len(torch.as_tensor(x)), dtype=torch.bool)

    def score(self, x) -> torch.Tensor:
        """Gradient of the log-density, [N, D] -> [N, D]: sum_k P(k|x) (m_k - x) / s_k^2."""
        x = _points(x)
        posterior = self._log_joint(x, self.sds, self.means).softmax(1)[:, :, None]
        return (posterior * (self.means - x[:, None]) / self.sds.square()).sum(1)

    def denoise(self, y, sigma) -> torch.Tensor:
        """D(y; sigma) = E[x_0 | x_0 + sigma n = y] for x_0 of this law and n ~ N(0, I).

        Args:
            y: noisy points, [N, D], data units.
            sigma: noise level, scalar or [N], data units, >= 0.
        Returns:
            [N, D], data units.
        """
        return self.regress(y, (1.0, sigma), (1.0, 0.0))

    def regress(self, x, position, target, scales=1.0) -> torch.Tensor:
        """E[a' x_0 + b' n | a x_0 + b n = x] for x_0 of this law and n ~ N(0, I), or N(0, s_k^2 I) given the component k.

        With the coefficients (a, b) of a linear flow and their rates (a', b') this is its exact velocity
        V(x, t) = E[v_t | x_t = x], regular where a = 0 (pure noise) and where b = 0 (pure data).

        Args:
            x: points, [N, D], data units.
            position: (a, b), each scalar or [N], not both zero.
            target: (a', b'), each scalar or [N]; (1, 0) asks for x_0.
            scales: s, of the noise given the component, a number or [K].
        Returns:
            [N, D]. Given the component k both vectors are jointly Gaussian, so that the conditional mean is
            a' m + (a a' s^2 + b b') / (a^2 s^2 + b^2) (x - a m); these are averaged with the posterior of k.
        """
        x = _points(x)
        a, b, da, db = (_column(value, x) for value in (*position, *target))
        scales = torch.as_tensor(scales, dtype=torch.float64).reshape(1, -1, 1)
        b, db = b * scales, db * scales
        total = a.square() * self.sds.square() + b.square()
        slope = (a * da * self.sds.square() + b * db) / total
        posterior = self._log_joint(x, total.sqrt(), a * self.means).softmax(1)[:, :, None]
        return (posterior * (da * self.means + slope * (x[:, None] - a * self.means))).sum(1)

    def velocity_under(self, flow: Any) -> Callable[[torch.Tensor, float | torch.Tensor], torch.Tensor]:
        """V(x, t) = E[v_t | x_t = x] of a linear flow that starts from this law, exact; x [N, D], t scalar or [N]."""

        law, scales = self._with(*flow.scales())

        def velocity(x: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
            a, b, a_dot, b_dot = flow.coefficients(torch.as_tensor(t, dtype=torch.float64))
            return law.regress(x, (a, b), (a_dot, b_dot), scales)

        return velocity

    def carried_by(self, flow: Any, t: float) -> "GaussianMixture":
        """The law of x_t of a linear flow that starts from this law."""
        a, b, _, _ = (float(c) for c in flow.coefficients(torch.tensor(t, dtype=torch.float64)))
        law, scales = self._with(*flow.scales())
        return GaussianMixture(law.weights, a * law.means, ((a * law.sds) ** 2 + (b * scales[:, None]) ** 2).sqrt())

    def mean_under(self, flow: Any, x: torch.Tensor, t: float, target: tuple[float, float]) -> torch.Tensor:
        """E[c x_0 + e n | x_t = x] of a linear flow with noise n, for target = (c, e): (1, 0) is its denoiser; [N, D]."""
        a, b, _, _ = flow.coefficients(torch.as_tensor(t, dtype=torch.float64))
        law, scales = self._with(*flow.scales())
        return law.regress(x, (a, b), target, scales)

    def _with(self, weights: torch.Tensor, scales: torch.Tensor) -> tuple["GaussianMixture", torch.Tensor]:
        """This law with every component once for each scale of the noise, and the scales by component."""
        copies, count = len(weights), len(self.weights)
        if copies == 1:
            return self, scales.expand(count)
        joint = (weights[:, None] * self.weights).flatten()
        law = GaussianMixture(joint / joint.sum(), self.means.repeat(copies, 1), self.sds.repeat(copies, 1))
        return law, scales.repeat_interleave(count)

    def smoothed(self, sigma: float) -> "GaussianMixture":
        """The law of x_0 + sigma n, n ~ N(0, I); sigma >= 0, data units."""
        return GaussianMixture(self.weights, self.means, (self.sds.square() + float(sigma) ** 2).sqrt())

    def scaled(self, factor: float) -> "GaussianMixture":
        """The law of factor * x_0, factor != 0."""
        return GaussianMixture(self.weights, factor * self.means, abs(factor) * self.sds)

    def sample(self, n: int, rng) -> torch.Tensor:
        """n independent points, [n, D], drawn from a numpy Generator."""
        which = rng.choice(len(self.weights), size=n, p=(self.weights / self.weights.sum()).numpy())
        noise = torch.from_numpy(rng.standard_normal((n, self.dimension)))
        return self.means[which] + self.sds[which] * noise

    def cdf(self, x) -> torch.Tensor:
        """P(X <= x) in one dimension, for x of any shape."""
        self._require_one_dimension()
        x = torch.as_tensor(x, dtype=torch.float64)[..., None]
        return torch.special.ndtr((x - self.means[:, 0]) / self.sds[:, 0]) @ self.weights

    def quantile(self, p) -> torch.Tensor:
        """The inverse of `cdf` in one dimension, for p in (0, 1) of any shape, by bisection to rounding."""
        self._require_one_dimension()
        p = torch.as_tensor(p, dtype=torch.float64)
        if not ((p > 0) & (p < 1)).all():
            raise ValueError("quantiles are of probabilities strictly between 0 and 1")
        reach = 40 * self.sds[:, 0]  # beyond 38 sd a Gaussian tail is below the smallest double
        low = (self.means[:, 0] - reach).min().expand(p.shape)
        high = (self.means[:, 0] + reach).max().expand(p.shape)
        for _ in range(80):  # 2^-80 of any sensible width is below its rounding
            middle = (low + high) / 2
            below = self.cdf(middle) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _log_joint(self, x: torch.Tensor, sds: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """log w_k + log N(x; m_k, diag(s_k^2)), [N, K]; sds and means [K, D] or [N, K, D]."""
        z = (x[:, None] - means) / sds
        norm = sds.log().sum(-1) + 0.5 * self.dimension * math.log(2 * math.pi)
        return self.weights.log() - norm - 0.5 * z.square().sum(-1)

    def _require_one_dimension(self) -> None:
        if self.dimension != 1:
            raise ValueError(f"only a law on the line has quantiles; this one has {self.dimension} dimensions")


def _points(x) -> torch.Tensor:
    x = torch.as_tensor(x, dtype=torch.float64)
    if x.ndim != 2:
        raise ValueError(f"points are [N, D], got shape {list(x.shape)}")
    return x


def _column(value, x: torch.Tensor) -> torch.Tensor:
    """A scalar or [N] as [1 or N, 1, 1], beside [N, K, D]."""
    return torch.as_tensor(value, dtype=torch.float64, device=x.device).reshape(-1, 1, 1)
