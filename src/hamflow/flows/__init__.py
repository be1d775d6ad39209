"""Hamiltonian generative flows: what carries data at t = 0 to a known law at t = T. One flow a file, found by name."""

from typing import Any

from hamflow.flows.base import FLOWS, GaussianFlow, HamiltonianFlow, LinearFlow, velocity_loss

__all__ = ["GaussianFlow", "HamiltonianFlow", "LinearFlow", "build", "names", "resolve", "velocity_loss"]


def names() -> list[str]:
    """The flows."""
    return FLOWS.names()


def build(name: str, /, **options: Any) -> HamiltonianFlow:
    """The flow of that name. Raises ConfigurationError for an unknown name, option or impossible value."""
    return FLOWS.build(name, **options)


def resolve(options: dict[str, Any], sigma_data: float, box: tuple[float, float]) -> HamiltonianFlow:
    """The flow of a parameter entry {name, ...}, its `auto` values filled in from the data.

    Args:
        options: the entry `methods.<method>.flow`.
        sigma_data: root mean square of the data about their mean, data units.
        box: (low, high), an interval that contains every coordinate of the data.
    """
    options = dict(options)
    kind = FLOWS.get(options.pop("name"))
    return build(kind.name, **kind.resolve(options, sigma_data, box))
