"""Oscillation HGF: data on springs."""

from typing import Any

from hamflow.flows.base import FLOWS, GaussianFlow
from hamflow.flows.motions import Springs, alpha_of
from hamflow.registry import Auto, Positive


@FLOWS.register("oscillation")
class Oscillation(Springs, GaussianFlow):
    """F = -alpha^2 x, v_0 ~ N(0, I): a quarter of a period turns the data into velocity, and the velocity into x_T.

    With alpha = 1 / sigma_data the spread of x_t is sigma_data and that of v_t is 1 at every t: no preconditioning is
    needed, and -V is then the inner network of EDM [derived, theory 4.5].
    Args:
        alpha: angular frequency, radians per unit time, > 0; "auto" in the parameters: 1 / sigma_data.
    Source: arXiv:2410.20470, Oscillation HGF.
    """

    name = "oscillation"

    def __init__(self, alpha: Positive | Auto = 1.0):
        super().__init__(float(alpha))

    @property
    def options(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        return alpha_of(options, sigma_data)
