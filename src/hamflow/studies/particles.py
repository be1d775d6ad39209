"""Densities of three particles at the corners of a triangle that is turned and mirrored at random, by Hamiltonian flows without
a symmetry constraint, with a soft one ({J, H} = 0) and with a hard one (energies of pairs of particles, invariant under SE(2)).

The flow with the hard constraint sees the particles, the others two orthonormal relative positions: the densities are those of
the same volume, and are compared with the law's own [theory 9.6].
"""

from typing import Annotated, Any

import torch
from msgspec import Meta, field
from torch import Tensor

from hamflow.equivariant import AffineGenerator, over_particles, rotation
from hamflow.laws.triangles import TriangleDensity
from hamflow.methods.equivariant import EquivariantFlow
from hamflow.registry import convert, some
from hamflow.studies import symmetry
from hamflow.studies.densities import DensityTraining

HARD = {"particles": 3, "group": "euclidean", "base": "mean_free", "encoder": "particles"}
FREE = {"particles": 2, "group": "rotations", "encoder": "full"}  # what `density` says of these keys is for both of them

# Orthonormal relative positions of three particles: (x_1 - x_2) / sqrt 2 and (x_1 + x_2 - 2 x_3) / sqrt 6
RELATIVE = torch.kron(
    torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=torch.float64) / torch.tensor([[2.0], [6.0]]).double().sqrt(),
    torch.eye(2, dtype=torch.float64),
)


class Spec(symmetry.Spec, kw_only=True, frozen=True):
    """The keys of `symmetry`; particles, group, base and encoder follow from the constraint."""

    sizes: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1)] = (100,)
    density: Annotated[dict[str, Any], some(EquivariantFlow)] = field(default_factory=dict)
    training: Annotated[dict[str, Any], some(DensityTraining)] = field(default_factory=lambda: {"train_kimg": 80, "batch": 100})


class Triangles:
    """Three particles: all of them with a hard constraint, else their relative positions."""

    law = TriangleDensity()

    def seen(self, constraint: str, x: Tensor) -> Tensor:
        return x if constraint == "hard" else x @ RELATIVE.to(x).T

    def rotation(self, constraint: str) -> AffineGenerator:
        return over_particles(rotation(2), 3 if constraint == "hard" else 2)

    def options(self, constraint: str) -> dict[str, Any]:
        return HARD if constraint == "hard" else FREE


def run(values: dict[str, Any]) -> dict[str, Any]:
    """The comparison on three particles."""
    return symmetry.compare("particles", convert(Spec, values, "studies.particles"), Triangles())


draw, tabulate = symmetry.draw, symmetry.tabulate
