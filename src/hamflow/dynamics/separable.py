"""Symplectic steps of any separable Hamiltonian, H = K(p) + U(q), of which `integrators.simulate` is the case K = |p|^2 / 2."""

from collections.abc import Callable, Iterator

from torch import Tensor

from hamflow.dynamics.integrators import SCHEMES
from hamflow.errors import ConfigurationError, nearest

Field = Callable[[Tensor], Tensor]


def trajectory(
    velocity: Field, force: Field, q: Tensor, p: Tensor, duration: float | Tensor, steps: int, scheme: str = "leapfrog"
) -> Iterator[tuple[Tensor, Tensor]]:
    """The states (q, p) after each of `steps` equal steps of dq/dt = velocity(p), dp/dt = force(q).

    A step is a sequence of shears, so that volume is preserved exactly whatever the two fields are; where they are the
    gradients dK/dp and -dU/dq, each shear is the exact flow of K or of U, and the step is symplectic. The schemes are
    symmetric: the same number of steps of the opposite duration leads back.

    Args:
        velocity, force: [N, d] -> [N, d].
        q, p: positions and momenta, [N, d].
        duration: of all steps, time units, scalar; negative: backwards.
        scheme: a name of `integrators.SCHEMES`.
    Raises:
        ConfigurationError: steps < 1 or an unknown scheme.
    Source:
        arXiv:1909.13739 and 1909.13789, with leapfrog; theory 1.3, 9.3.
    """
    if steps < 1:
        raise ConfigurationError(f"an integration needs steps >= 1, got {steps}")
    if scheme not in SCHEMES:
        raise ConfigurationError(f"unknown scheme '{scheme}'", fix=nearest(scheme, SCHEMES))
    kicks, drifts = SCHEMES[scheme]
    h, pull = duration / steps, None
    for _ in range(steps):
        for kick, move in zip(kicks, (*drifts, 0.0), strict=True):
            if kick:
                pull = force(q) if pull is None else pull  # of the last kick of a step, if there was no drift since
                p = p + kick * h * pull
            if move:
                q, pull = q + move * h * velocity(p), None
        yield q, p
