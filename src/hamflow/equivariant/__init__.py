"""Densities from learned Hamiltonian flows, with symmetries written as Poisson brackets (arXiv:1909.13739)."""

from hamflow.equivariant.brackets import poisson_bracket
from hamflow.equivariant.generators import (
    AffineGenerator,
    charges,
    linear,
    over_particles,
    rotation,
    special_euclidean,
    special_orthogonal,
    structure_constants,
    translation,
    translations,
)

__all__ = [
    "AffineGenerator",
    "charges",
    "linear",
    "over_particles",
    "poisson_bracket",
    "rotation",
    "special_euclidean",
    "special_orthogonal",
    "structure_constants",
    "translation",
    "translations",
]
