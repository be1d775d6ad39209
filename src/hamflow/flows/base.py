"""What a Hamiltonian generative flow is, and what all linear ones share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from hamflow.draws import Draw
from hamflow.dynamics import broadcast
from hamflow.dynamics.forces import Force
from hamflow.registry import Registry

Velocity = Callable[[Tensor, float | Tensor], Tensor]

FLOWS: Registry = Registry("flow", "hamflow.flows")


class HamiltonianFlow(ABC):
    """Phase-space flow dx/dt = v, dv/dt = F(x, t) that carries data at t = 0 to a known law at t = T.

    V(x, t) = E[v_t | x_t = x] transports the law of x_t; dx/dt = V run backwards from x_T generates data
    (arXiv:2410.20470). Positions are [N, *dims] in data units; times are scalars or [N].
    """

    name: ClassVar[str]
    horizon: float  # T, time units

    @property
    def latest(self) -> float:
        """The latest time of a training, time units: the horizon, unless a flow says otherwise."""
        return self.horizon

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The options that rebuild this flow: build(name, **options)."""

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        """Options with every `auto` replaced by the value that fits the data; see `hamflow.flows.resolve`."""
        return options

    def for_shape(self, shape: tuple[int, ...]) -> "HamiltonianFlow":
        """This flow, with room for the statistics of samples of a shape if it needs any; a torch module then holds them."""
        return self

    def measure(self, rows: Any) -> None:  # noqa: B027  most flows need none
        """Take the statistics of the data that the flow needs, before the first step; rows: `hamflow.training.fit.Rows`."""

    def check_measured(self) -> None:  # noqa: B027
        """Raise ConfigurationError if statistics that the flow needs are absent or impossible."""

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        """The noise that `couple` and `terminal` take, [n, *shape]: unit normal, unless a flow says otherwise."""
        return draw.normal("noise", shape)

    @property
    def has_variance(self) -> bool:
        """Whether E|v_t|^2 is finite, as the plain velocity loss asks for."""
        return True

    @abstractmethod
    def force(self, x: Tensor, t: float | Tensor) -> Tensor:
        """F(x, t), shaped like x; between walls if the flow has any, see `confine`."""

    @abstractmethod
    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        """v_0 from the flow's noise; may look at x_0."""

    @abstractmethod
    def push(self, x0: Tensor, v0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        """(x_t, v_t), exactly."""

    @abstractmethod
    def terminal(self, noise: Tensor) -> Tensor:
        """x_T from the flow's noise."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise-to-signal ratio of x_t, data units: 0 at t = 0, increasing."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The inverse of `sigma`."""

    @abstractmethod
    def standardise(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor:
        """x_t scaled to about unit spread: what a network sees."""

    @abstractmethod
    def smoothed_score(self, velocity: Velocity, y: Tensor, sigma: float | Tensor) -> Tensor:
        """The score at y of the data smoothed by noise of level sigma > 0, from V at the time where sigma(t) = sigma."""

    def confine(self, force: Force) -> Force:
        """A force with the walls of the space that data live in, if it has any."""
        return force

    def unfold(self, velocity: Velocity) -> Velocity:
        """The velocity field continued to all of space, so that a solver may step anywhere."""
        return velocity

    def settle(self, x: Tensor) -> Tensor:
        """A position anywhere in space brought back to where data live."""
        return x


class LinearFlow(HamiltonianFlow):
    """x_t = a x_0 + b n, v_t = a' x_0 + b' n with noise n and Wronskian a b' - a' b = 1.

    Then V, the denoiser D_t(x) = E[x_0 | x_t = x] and the noise E[n | x_t = x] are linear functions of each other, whatever
    the law of n (theory 4.4; the Wronskian makes each of them a sum of two terms):
        V = a' D + b' E[n],   x = a D + b E[n]   =>   D = b' x - b V,   E[n] = a V - a' x.
    """

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(a, b, a', b') at times t."""

    def sigma(self, t: Tensor) -> Tensor:
        a, b, _, _ = self.coefficients(torch.as_tensor(t))
        return b / a

    def standardise(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor:
        a, b, _, _ = self._at(t, x)
        return x / torch.sqrt((a * sigma_data) ** 2 + b**2)

    def scales(self) -> tuple[Tensor, Tensor]:
        """The noise as a mixture of N(0, s_j^2 I): (weights, s), float64 [J] each, for closed forms; (1, 1) if it is normal."""
        return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def widening(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor | float:
        """About how much wider than N(0, I) the noise within x_t is, [N] or a number: 1, unless its law has heavy tails."""
        return 1.0

    def denoiser_from_velocity(self, x: Tensor, velocity: Tensor, t: float | Tensor) -> Tensor:
        """D_t(x) = E[x_0 | x_t = x] from V(x, t); regular for every t."""
        _, b, _, b_dot = self._at(t, x)
        return b_dot * x - b * velocity

    def noise_from_velocity(self, x: Tensor, velocity: Tensor, t: float | Tensor) -> Tensor:
        """E[n | x_t = x] from V(x, t); regular for every t."""
        a, _, a_dot, _ = self._at(t, x)
        return a * velocity - a_dot * x

    def velocity_from_denoiser(self, x: Tensor, denoised: Tensor, t: float | Tensor) -> Tensor:
        """V(x, t) from D_t(x); t > 0."""
        _, b, _, b_dot = self._at(t, x)
        return (b_dot * x - denoised) / b

    def velocity_from_noise(self, x: Tensor, noise: Tensor, t: float | Tensor) -> Tensor:
        """V(x, t) from E[n | x_t = x]; wherever a(t) != 0."""
        a, _, a_dot, _ = self._at(t, x)
        return (a_dot * x + noise) / a

    def _at(self, t: float | Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b, a_dot, b_dot = self.coefficients(broadcast(t, x))
        return a, b, a_dot, b_dot


class GaussianFlow(LinearFlow):
    """A linear flow whose noise is n ~ N(0, C): then the score of the law of x_t is -C^-1 E[n | x_t = x] / b (Tweedie).

    C is the identity, unless a flow says otherwise.
    """

    def times_covariance(self, x: Tensor) -> Tensor:
        """C x."""
        return x

    def over_covariance(self, x: Tensor) -> Tensor:
        """C^-1 x."""
        return x

    def smoothed_score(self, velocity: Velocity, y: Tensor, sigma: float | Tensor) -> Tensor:
        t = self.time(torch.as_tensor(sigma, dtype=y.dtype, device=y.device))
        x = self._at(t, y)[0] * y  # x_t = a (x_0 + sigma n)
        return self._at(t, y)[0] * self.score_from_velocity(x, velocity(x, t), t)

    def score_from_velocity(self, x: Tensor, velocity: Tensor, t: float | Tensor) -> Tensor:
        """The score of the law of x_t from V(x, t); t > 0."""
        _, b, _, _ = self._at(t, x)
        return -self.over_covariance(self.noise_from_velocity(x, velocity, t)) / b

    def velocity_from_score(self, x: Tensor, score: Tensor, t: float | Tensor) -> Tensor:
        """V(x, t) from the score of the law of x_t; wherever a(t) != 0."""
        _, b, _, _ = self._at(t, x)
        return self.velocity_from_noise(x, -b * self.times_covariance(score), t)


def velocity_loss(
    predict: Velocity,
    flow: HamiltonianFlow,
    x0: Tensor,
    v0: Tensor,
    t: Tensor,
    weight: Callable[[Tensor, Tensor], Tensor] | None = None,
    metric: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean over coordinates of |V(x_t, t) - v_t|^2, a sample; its minimiser is E[v_t | x_t]. Noise and times are arguments.

    Args:
        weight: (x_t, t) -> [N], a factor > 0 of each sample's loss, which leaves the minimiser as it is; None: 1.
        metric: an invertible linear map of the residual, which leaves it as it is, too; None: the identity.
    Returns: [N].
    Source: regression form of the Hamiltonian velocity predictor (arXiv:2410.20470); theory 2.1.
    """
    x_t, v_t = flow.push(x0, v0, t)
    residual = predict(x_t, t) - v_t
    loss = (residual if metric is None else metric(residual)).square().flatten(1).mean(1)
    return loss if weight is None else weight(x_t, t) * loss
