"""Generators of symmetries, g = p . (A q + b): translations, rotations, any affine action, and their Lie algebras."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError

CLOSED = 1e-10  # of a bracket, relative to its size: what no combination of the generators gives


@dataclass(frozen=True, eq=False)
class AffineGenerator:
    """g(q, p) = p . (A q + b), which generates q' = {q, g} = A q + b and p' = {p, g} = -A^T p.

    Attributes:
        name: for messages. matrix: A, float64 [d, d]. shift: b, float64 [d], data units.
    """

    name: str
    matrix: Tensor
    shift: Tensor

    def __post_init__(self) -> None:
        if self.matrix.shape != 2 * self.shift.shape:
            raise ConfigurationError(
                f"the generator '{self.name}' has a matrix of shape {tuple(self.matrix.shape)} and a shift of shape "
                f"{tuple(self.shift.shape)}",
                fix="g = p . (A q + b) needs A [d, d] and b [d]",
            )

    @property
    def dimension(self) -> int:
        """d, the number of coordinates."""
        return len(self.shift)

    def __call__(self, q: Tensor, p: Tensor) -> Tensor:
        """g, [..., d] x [..., d] -> [...]: the charge, which is conserved where {g, H} = 0."""
        return (p * self.field(q)).sum(-1)

    def field(self, q: Tensor) -> Tensor:
        """dg/dp = A q + b, [..., d]. Raises ConfigurationError for positions of another dimension."""
        self.check_dimension(q.shape[-1])
        return q @ self.matrix.to(q).T + self.shift.to(q)

    def rate(self, q: Tensor, p: Tensor, velocity: Tensor, force: Tensor) -> Tensor:
        """{g, H} of a separable H = K(p) + U(q) from its velocity dK/dp and its force -dU/dq, all [..., d] -> [...].

        It is the rate at which the motion under H changes the charge.
        """
        return ((p @ self.matrix.to(p)) * velocity).sum(-1) + (self.field(q) * force).sum(-1)

    def move(self, q: Tensor, p: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The symmetry itself: the flow of g for a parameter t (for a rotation, an angle in radians), exact."""
        self.check_dimension(q.shape[-1])
        d = self.dimension
        whole = torch.zeros(d + 1, d + 1, dtype=torch.float64)
        whole[:d, :d], whole[:d, d] = self.matrix, self.shift
        forward = torch.linalg.matrix_exp(t * whole).to(q)
        inverse = torch.linalg.matrix_exp(-t * self.matrix).to(p)
        return q @ forward[:d, :d].T + forward[:d, d], p @ inverse

    def bracket(self, other: "AffineGenerator") -> "AffineGenerator":
        """{self, other} in closed form: p . ([A, A'] q + A b' - A' b)."""
        self.check_dimension(other.dimension)
        return AffineGenerator(
            f"{{{self.name}, {other.name}}}",
            self.matrix @ other.matrix - other.matrix @ self.matrix,
            self.matrix @ other.shift - other.matrix @ self.shift,
        )

    def check_dimension(self, dimension: int) -> None:
        """Raise ConfigurationError unless it acts on so many coordinates."""
        if dimension != self.dimension:
            raise ConfigurationError(
                f"the generator '{self.name}' acts on {self.dimension} coordinates, but there are {dimension}",
                why="a symmetry says where every coordinate goes",
                fix="make it for that dimension; of several particles it is `over_particles(generator, n)`",
            )


def linear(matrix: Tensor | Sequence[Sequence[float]], name: str = "linear") -> AffineGenerator:
    """g = p^T A q, for any A [d, d]."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    return AffineGenerator(name, matrix, torch.zeros(len(matrix), dtype=torch.float64))


def translation(d: int, axis: int) -> AffineGenerator:
    """g = p_axis: a shift along one axis (counted from 0) of d."""
    shift = torch.zeros(d, dtype=torch.float64)
    shift[_axis(d, axis)] = 1
    return AffineGenerator(f"p_{axis + 1}", torch.zeros(d, d, dtype=torch.float64), shift)


def rotation(d: int, i: int = 0, j: int = 1) -> AffineGenerator:
    """g = q_i p_j - q_j p_i: the rotation in the plane of two axes (counted from 0), from i towards j.

    Raises:
        ConfigurationError: axes that are no plane of a space of d dimensions.
    """
    if i == j:
        raise ConfigurationError(f"a rotation needs two different axes, got {i} twice")
    matrix = torch.zeros(d, d, dtype=torch.float64)
    i, j = _axis(d, i), _axis(d, j)
    matrix[j, i], matrix[i, j] = 1, -1
    return AffineGenerator(f"J_{i + 1}{j + 1}", matrix, torch.zeros(d, dtype=torch.float64))


def translations(d: int) -> list[AffineGenerator]:
    """Along every axis."""
    return [translation(d, axis) for axis in range(d)]


def special_orthogonal(d: int) -> list[AffineGenerator]:
    """SO(d): the rotations in every plane. Raises ConfigurationError on the line, where there is none."""
    if d < 2:
        raise ConfigurationError(f"rotations need a plane, but there is only {d} coordinate", fix="use at least two")
    return [rotation(d, i, j) for i, j in itertools.combinations(range(d), 2)]


def special_euclidean(d: int) -> list[AffineGenerator]:
    """SE(d): translations and rotations; in the plane {p_1, p_2, J} with {J, p_1} = p_2 and {J, p_2} = -p_1."""
    return translations(d) + special_orthogonal(d)


def over_particles(generator: AffineGenerator, n: int) -> AffineGenerator:
    """The sum over n particles: each has d coordinates, one particle after the other, and moves as the generator says."""
    return AffineGenerator(
        generator.name,
        torch.kron(torch.eye(n, dtype=torch.float64), generator.matrix),
        generator.shift.repeat(n),
    )


def structure_constants(generators: Sequence[AffineGenerator]) -> Tensor:
    """c with {g_k, g_l} = sum_m c_klm g_m, float64 [k, k, k].

    Raises:
        ConfigurationError: generators that depend on each other, or a bracket that is no combination of them.
    """
    basis = torch.stack([_flat(generator) for generator in generators], 1)
    if int(torch.linalg.matrix_rank(basis)) < len(generators):
        raise ConfigurationError(
            f"the generators {_names(generators)} depend on each other", fix="leave out one that others give"
        )
    found = torch.zeros(3 * [len(generators)], dtype=torch.float64)
    for (k, one), (m, other) in itertools.product(enumerate(generators), repeat=2):
        wanted = _flat(one.bracket(other))
        found[k, m] = torch.linalg.lstsq(basis, wanted[:, None]).solution[:, 0]
        if float((basis @ found[k, m] - wanted).norm()) > CLOSED * (1 + float(wanted.norm())):
            raise ConfigurationError(
                f"{{{one.name}, {other.name}}} is no combination of {_names(generators)}",
                why="a flow that is invariant under two generators is invariant under their bracket as well",
                fix="add the bracket, `one.bracket(other)`, to the generators",
            )
    return found


def charges(generators: Sequence[AffineGenerator], states: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """g_k along a trajectory of states (q, p) [N, d]: [times, k, N]; constant in time where {g_k, H} = 0 (Noether)."""
    return torch.stack([torch.stack([charge(q, p) for charge in generators]) for q, p in states])


def _axis(d: int, axis: int) -> int:
    if not 0 <= axis < d:
        raise ConfigurationError(f"there is no axis {axis} among {d}", fix=f"axes are counted from 0 to {d - 1}")
    return axis


def _flat(generator: AffineGenerator) -> Tensor:
    return torch.cat([generator.matrix.flatten(), generator.shift])


def _names(generators: Sequence[AffineGenerator]) -> str:
    return ", ".join(generator.name for generator in generators)
