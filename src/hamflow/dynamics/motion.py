"""Motions in closed form: free flight, the harmonic oscillator, and reflection at the walls of a box."""

import torch
from torch import Tensor


def broadcast(t: float | Tensor, x: Tensor) -> Tensor:
    """A time (scalar or [N]) shaped so that it multiplies x ([N, *dims]) sample by sample, in x's dtype and on its device."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


def drift(x: Tensor, v: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """Move (x, v) without a force for a time t, exactly.

    Args:
        x: positions, [N, *dims], data units.
        v: velocities, [N, *dims], data units per unit time.
        t: elapsed time, scalar or [N].
    Returns:
        (x + t v, v), shaped as given.
    """
    return x + broadcast(t, x) * v, v


def rotate(x: Tensor, v: Tensor, alpha: float, t: float | Tensor) -> tuple[Tensor, Tensor]:
    """Move (x, v) under the harmonic force F(x) = -alpha^2 x for a time t, exactly.

    Args:
        x: positions, [N, *dims], data units.
        v: velocities, [N, *dims], data units per unit time.
        alpha: angular frequency, radians per unit time, > 0.
        t: elapsed time, scalar or [N].
    Returns:
        (x_t, v_t), shaped as given; |v|^2 + alpha^2 |x|^2 is conserved.
    Raises:
        ValueError: alpha <= 0; for the force-free limit use `drift`.
    Source:
        Holderrieth, Xu, Jaakkola 2024 (arXiv:2410.20470), Oscillation HGF.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}; for the force-free limit use drift")
    angle = alpha * broadcast(t, x)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return cos * x + sin / alpha * v, cos * v - alpha * sin * x


def fold(x: Tensor, v: Tensor, low: float | Tensor, high: float | Tensor) -> tuple[Tensor, Tensor]:
    """Bring a free flight back into a box with elastic walls, each coordinate on its own.

    Args:
        x: unfolded positions, [N, *dims], anywhere on the line.
        v: velocities before any reflection, [N, *dims].
        low, high: the walls, scalars or broadcastable to x, low < high.
    Returns:
        (x, v) inside [low, high], the velocity turned round once for each reflection.
    Raises:
        ValueError: high <= low.
    Source:
        [derived] Unfolding: the reflected path is the straight one on a line of mirrored boxes, period 2 (high - low).
    """
    width = torch.as_tensor(high, dtype=x.dtype) - torch.as_tensor(low, dtype=x.dtype)  # of numbers on the CPU: no host waits
    if not bool((width > 0).all()):
        raise ValueError(f"the box needs low < high, got [{low}, {high}]")
    r = torch.remainder(x - low, 2 * width)  # in [0, 2 width): the first half is the box itself, the second its mirror image
    mirrored = r > width
    inside = low + torch.where(mirrored, 2 * width - r, r)
    return inside, torch.where(mirrored, -v, v)
