"""The Poisson bracket of functions on phase space, by automatic differentiation."""

from collections.abc import Callable

import torch
from torch import Tensor

from hamflow.errors import ConfigurationError

Scalar = Callable[[Tensor, Tensor], Tensor]  # (q [..., d], p [..., d]) -> [...], each row a function of its own row


def poisson_bracket(f: Scalar, g: Scalar) -> Scalar:
    """{f, g} = sum_i df/dq_i dg/dp_i - df/dp_i dg/dq_i, itself a function of (q, p).

    Brackets may be nested. The value is differentiable in q, in p and in the weights of f and g where gradients are enabled.

    Args:
        f, g: scalar functions of positions and momenta, any batch shape; neither need depend on both.
    Returns:
        (q [..., d], p [..., d]) -> [...].
    Raises:
        ConfigurationError: when called, positions and momenta of unequal shapes, or a function that gives no scalar a row.
    Source:
        arXiv:1909.13739; theory 9.1.
    """

    def bracket(q: Tensor, p: Tensor) -> Tensor:
        if q.shape != p.shape:
            raise ConfigurationError(
                f"a Poisson bracket was asked at positions of shape {tuple(q.shape)} and momenta of shape {tuple(p.shape)}",
                why="each coordinate is paired with its momentum",
                fix="give both the same shape, [..., d]",
            )
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            q, p = (x if x.requires_grad else x.detach().requires_grad_() for x in (q, p))
            f_q, f_p = _gradients(f, q, p)
            g_q, g_p = _gradients(g, q, p)
            value = (f_q * g_p - f_p * g_q).sum(-1)
        return value if differentiable else value.detach()

    return bracket


def _gradients(f: Scalar, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    value = f(q, p)
    if value.shape != q.shape[:-1]:
        raise ConfigurationError(
            f"a function in a Poisson bracket gave shape {tuple(value.shape)} for positions of shape {tuple(q.shape)}",
            fix="it maps (q [..., d], p [..., d]) to one number a row, [...]",
        )
    if not value.requires_grad:  # a constant
        return torch.zeros_like(q), torch.zeros_like(p)
    of_q, of_p = torch.autograd.grad(value.sum(), (q, p), create_graph=True, allow_unused=True, materialize_grads=True)
    return of_q, of_p
