"""Oscillation HGF whose velocities have a part of the data's covariance."""

from typing import Any

from torch import Tensor, nn

from hamflow.draws import Draw
from hamflow.errors import NotOffered
from hamflow.flows.base import FLOWS, GaussianFlow, Velocity
from hamflow.flows.colour import Basis, Colour, Spectrum
from hamflow.flows.motions import Springs, alpha_of
from hamflow.registry import Auto, NotNegative, Positive
from hamflow.training.fit import Rows


@FLOWS.register("oscillation_coloured")
class OscillationColoured(Springs, GaussianFlow, nn.Module):
    """F = -alpha^2 x, v_0 ~ N(0, K), K = c(S) d / tr c(S) for data of covariance S: x_T ~ N(0, K / alpha^2) exactly.

    c = S^g: g = 0 is the Oscillation HGF. With g = 1 and alpha = 1 / sigma_data every principal component keeps its scale,
    and the velocity of Gaussian data is zero: V carries only what is not Gaussian.
    Args:
        colour: g; or ln c in bands of the spectrum, as `hamflow study PRESET/search` finds them. alpha: as for flow
            'oscillation'. ridge, basis: see `hamflow.flows.colour.Colour`.
    Source: [derived] theory 4.7.
    """

    name = "oscillation_coloured"
    covariance: Colour  # K, made by `for_shape`

    def __init__(
        self,
        colour: Spectrum = 0.3,
        alpha: Positive | Auto = 1.0,
        ridge: NotNegative = 0.01,
        basis: Basis = "auto",
    ):
        nn.Module.__init__(self)
        Springs.__init__(self, float(alpha))
        self.colour = list(colour) if isinstance(colour, list | tuple) else float(colour)
        self.ridge, self.basis = float(ridge), basis

    @property
    def options(self) -> dict[str, Any]:
        return {"colour": self.colour, "alpha": self.alpha, "ridge": self.ridge, "basis": self.basis}

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        return alpha_of(options, sigma_data)

    def for_shape(self, shape: tuple[int, ...]) -> "OscillationColoured":
        self.covariance = Colour(shape, self.colour, self.ridge, self.basis)
        return self

    def measure(self, rows: Rows) -> None:
        self.covariance.measure(rows)

    def check_measured(self) -> None:
        self.covariance.check()

    def noise(self, draw: Draw, shape: tuple[int, ...]) -> Tensor:
        normal = draw.normal("noise", shape)
        return normal if self.colour == 0 else self.covariance.apply_power(normal.to(self.covariance.spectrum.device), 0.5)

    def times_covariance(self, x: Tensor) -> Tensor:
        return x if self.colour == 0 else self.covariance.apply_power(x, 1.0)

    def over_covariance(self, x: Tensor) -> Tensor:
        return x if self.colour == 0 else self.covariance.apply_power(x, -1.0)

    def smoothed_score(self, velocity: Velocity, y: Tensor, sigma: float | Tensor) -> Tensor:
        if self.colour and self.covariance.size > 1:
            raise NotOffered(
                "flow 'oscillation_coloured' has the scores of data smoothed by coloured noise, but not of data smoothed by "
                "white noise"
            )
        return super().smoothed_score(velocity, y, sigma)
