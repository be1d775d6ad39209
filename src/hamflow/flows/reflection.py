"""Reflection HGF: free flight between elastic walls."""

import math
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor

from hamflow.dynamics import ElasticBox, broadcast, drift, fold, zero
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError
from hamflow.flows.base import FLOWS, HamiltonianFlow, Velocity
from hamflow.registry import Auto, Positive

WIDTHS_TO_UNIFORM = 1.5  # S T / L: the slowest mode has decayed to 2 exp(-(pi 1.5)^2 / 2) = 3e-5


@FLOWS.register("reflection")
class Reflection(HamiltonianFlow):
    """No force inside the box [low, high]^d, elastic walls, v_0 ~ N(0, speed^2 I): x_t tends to the uniform law.

    Each coordinate's law solves the heat equation with reflecting walls at "time" (S t)^2 / 2, hence V = -S^2 t score
    [derived, theory 5.2]. V says nothing about E[x_0 | x_t], so there is no denoiser.
    Args:
        low, high: the walls, data units; "auto" in the parameters: the data set's box.
        widen: the walls stand so many times as far from the middle of [low, high]. Data that touch the walls, as black pixels
            do, need about 2 (theory 5.6).
        speed: S, standard deviation of v_0, data units per unit time.
        horizon: T, time units; "auto": 1.5 box widths / speed.
    Source: arXiv:2410.20470, Reflection HGF.
    """

    name = "reflection"

    def __init__(
        self,
        low: float | Auto = -1.0,
        high: float | Auto = 1.0,
        speed: Positive = 1.0,
        horizon: Positive | Auto | None = None,
        widen: Annotated[float, Meta(ge=1)] = 1.0,
    ):
        self.low, self.high, self.speed = float(low), float(high), float(speed)
        if widen != 1:
            middle, half = (self.low + self.high) / 2, widen * (self.high - self.low) / 2
            self.low, self.high = middle - half, middle + half
        if not self.low < self.high:
            raise ConfigurationError(f"the box of flow 'reflection' needs low < high, got [{low}, {high}]")
        self.width = self.high - self.low
        self.horizon = WIDTHS_TO_UNIFORM * self.width / self.speed if horizon is None or horizon == "auto" else float(horizon)

    @property
    def options(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "speed": self.speed, "horizon": self.horizon}

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value != "auto"}
        resolved = {"low": box[0], "high": box[1], **given}
        if resolved["low"] > box[0] or resolved["high"] < box[1]:
            raise ConfigurationError(
                f"the box [{resolved['low']}, {resolved['high']}] of flow 'reflection' does not contain the data, {list(box)}",
                why="data outside the box would be reflected into it before the flow begins",
                fix="leave low and high out: they are then taken from the data set",
            )
        return resolved

    def force(self, x: Tensor, t: float | Tensor) -> Tensor:
        return zero(x, t)

    def couple(self, x0: Tensor, noise: Tensor) -> Tensor:
        return self.speed * noise

    def push(self, x0: Tensor, v0: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
        return fold(*drift(x0, v0, t), self.low, self.high)

    def terminal(self, noise: Tensor) -> Tensor:
        return self.low + self.width * torch.special.ndtr(noise)

    def sigma(self, t: Tensor) -> Tensor:
        return self.speed * torch.as_tensor(t)  # standard deviation of the flight before folding

    def time(self, sigma: Tensor) -> Tensor:
        return sigma / self.speed

    def standardise(self, x: Tensor, t: float | Tensor, sigma_data: float) -> Tensor:
        centre, spread = (self.low + self.high) / 2, self.width / math.sqrt(12)  # of the uniform law
        return (x - centre) / spread

    def smoothed_score(self, velocity: Velocity, y: Tensor, sigma: float | Tensor) -> Tensor:
        """The noise is folded into the box; V = -S^2 t score with S t = sigma."""
        t = self.time(torch.as_tensor(sigma, dtype=y.dtype, device=y.device))
        return -velocity(y, t) / broadcast(self.speed**2 * t, y)

    def confine(self, force: Force) -> Force:
        return ElasticBox(self.low, self.high, force)

    def unfold(self, velocity: Velocity) -> Velocity:
        """The field on the line of mirrored boxes: V(x) = +-V(folded x), minus in mirror images.

        V's normal component vanishes at the walls, so this continuation is smooth and a solver keeps its order; the
        sample is folded back (`settle`) once, at the end.
        """

        def unfolded(x: Tensor, t: float | Tensor) -> Tensor:
            inside, sign = fold(x, torch.ones_like(x), self.low, self.high)
            return sign * velocity(inside, t)

        return unfolded

    def settle(self, x: Tensor) -> Tensor:
        return fold(x, x, self.low, self.high)[0]
