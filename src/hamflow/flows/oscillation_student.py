"""Oscillation HGF with heavy-tailed velocities."""

from typing import Any

from hamflow.flows.base import FLOWS
from hamflow.flows.motions import Springs, alpha_of
from hamflow.flows.student import Degrees, Student
from hamflow.registry import Auto, Positive


@FLOWS.register("oscillation_student")
class OscillationStudent(Student, Springs):
    """F = -alpha^2 x, v_0 Student-t with D degrees: x_T = v_0 / alpha exactly; an infinite D is the Oscillation HGF.

    Args:
        degrees: D > 0, or "infinity". alpha: as for flow 'oscillation'.
    Source: [derived] theory 4.7.
    """

    name = "oscillation_student"

    def __init__(self, degrees: Degrees = 128.0, alpha: Positive | Auto = 1.0):
        super().__init__(float(alpha))
        self.degrees = degrees

    @property
    def options(self) -> dict[str, Any]:
        return {"degrees": self.degrees, "alpha": self.alpha}

    @classmethod
    def resolve(cls, options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> dict[str, Any]:
        return alpha_of(options, sigma_data)
