"""What the network sees and predicts, and how its loss is weighted: always a velocity in the end."""

from hamflow.flows import HamiltonianFlow
from hamflow.parameterisation.base import PARAMETERISATIONS, Parameterisation

__all__ = ["Parameterisation", "build", "names"]


def names() -> list[str]:
    """The parameterisations."""
    return PARAMETERISATIONS.names()


def build(name: str, flow: HamiltonianFlow, sigma_data: float) -> Parameterisation:
    """The parameterisation of that name for a flow and data of that spread."""
    return PARAMETERISATIONS.build(name, flow, sigma_data)
