"""PFGM and PFGM++: free flight with heavy-tailed velocities."""

from typing import Any

from hamflow.flows.base import FLOWS
from hamflow.flows.motions import FreeFlight
from hamflow.flows.student import Degrees, Student
from hamflow.registry import Positive


@FLOWS.register("pfgm")
class PFGM(Student, FreeFlight):
    """F = 0, v_0 Student-t with D degrees: V is the field, in N + D dimensions, of charges placed at the data.

    With D extra dimensions and r = t sqrt(D) the perturbed data of PFGM++ are x_0 + t v_0, and dx/dr of its field is
    V / sqrt(D) [derived, theory 4.7]: D = 1 is PFGM, an infinite D diffusion. x_T is taken as T v_0.
    Args:
        degrees: D > 0, or "infinity". 128 and 2048 for 3072 pixels (Xu et al. 2023); 8 to 64 for 64 pixels.
        horizon: T, data units, large against the data.
    Source: arXiv:2410.20470, zero force; Xu et al. 2022 (arXiv:2209.11178), 2023 (arXiv:2302.04265).
    """

    name = "pfgm"

    def __init__(self, degrees: Degrees = 128.0, horizon: Positive = 80.0):
        super().__init__(horizon)
        self.degrees = degrees

    @property
    def options(self) -> dict[str, Any]:
        return {"degrees": self.degrees, "horizon": self.horizon}
