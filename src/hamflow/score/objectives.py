"""Score matching objectives, per sample, with every random number an argument.

A score is a callable s: [N, *dims] -> [N, *dims] whose row i depends on row i of x alone. Each function returns [N], summed
over coordinates (data units^-2), so that its mean estimates the objective, and can be differentiated in s's parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hamflow.dynamics import broadcast, simulate
from hamflow.dynamics.forces import Force

Score = Callable[[Tensor], Tensor]
Critic = Callable[[Tensor, Tensor], Tensor]


def explicit(score: Score, x: Tensor, target: Tensor) -> Tensor:
    """1/2 |s(x) - target|^2; with target the exact score of the law of x its mean is L_esm.

    Args: x, target: [N, *dims].  Returns: [N].  Source: Hyvarinen 2005.
    """
    return 0.5 * _squared(score(x) - target)


def denoising(score: Score, x: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """1/2 |s(x + sigma n) + n / sigma|^2: minimised by the score of the data smoothed by sigma, not of the data.

    Args:
        x: data, [N, *dims]. noise: unit normal, like x. sigma: noise level, scalar or [N], data units, > 0.
    Returns: [N].  Source: Vincent 2011; theory 2.11.
    """
    sigma = broadcast(sigma, x)
    return 0.5 * _squared(score(x + sigma * noise) + noise / sigma)


def implicit(score: Score, x: Tensor, probes: Tensor | None = None) -> Tensor:
    """div s(x) + 1/2 |s(x)|^2: differs from L_esm by a constant of the data.

    Args:
        x: data, [N, *dims].
        probes: None: exact divergence, one differentiation a coordinate. Or [M, N, *dims] of mean zero and unit covariance:
            Hutchinson's estimate, mean of n^T (ds/dx) n over the M probes, unbiased (the "variance reduced" sliced objective).
    Returns: [N].  Source: Hyvarinen 2005; Song et al. 2019 (arXiv:1905.07088).
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        s = score(x)
        divergence = _exact_divergence(s, x) if probes is None else _quadratic_forms(s, x, probes).mean(0)
    return divergence + 0.5 * _squared(s)


def sliced(score: Score, x: Tensor, directions: Tensor) -> Tensor:
    """n^T (ds/dx) n + 1/2 (n . s)^2, mean over the directions.

    Args: x: data, [N, *dims]. directions: [M, N, *dims] of mean zero and unit covariance.
    Returns: [N].  Source: Song et al. 2019 (arXiv:1905.07088), eq. 7.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        s = score(x)
        curvature = _quadratic_forms(s, x, directions)
        projection = (directions * s).flatten(2).sum(2)
    return (curvature + 0.5 * projection.square()).mean(0)


def hamiltonian(
    force: Force,
    critic: Critic,
    x0: Tensor,
    v0: Tensor,
    t: Tensor,
    *,
    integration_steps: int = 3,
    scheme: str = "leapfrog",
) -> Tensor:
    """2 V(x_t, t) . v_t - |V(x_t, t)|^2 along the motion of (x_0, v_0) under the force: a score minimises it,
    a critic V maximises.

    Its mean is a lower bound of the Hamiltonian score discrepancy D(t) = E|E[v_t | x_t]|^2, attained by V = E[v_t | x_t]. The
    gradient in the force's parameters goes through the integrator and through the critic's input (theory 2.8).

    Args: x0: data, [N, *dims]. v0: unit normal, like x0. t: [N], time units.
    Returns: [N].  Source: arXiv:2410.20470, L_hsm with its sign turned; theory 2.10.
    """
    x_t, v_t = simulate(force, x0, v0, t, integration_steps, scheme)
    return gain(critic(x_t, t), v_t)


def gain(predicted: Tensor, v: Tensor) -> Tensor:
    """2 V . v - |V|^2, [N, *dims] -> [N]."""
    return (predicted * (2 * v - predicted)).flatten(1).sum(1)


def _squared(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1)


def _exact_divergence(s: Tensor, x: Tensor) -> Tensor:
    components = s.flatten(1).sum(0)  # rows are independent: one sum serves the whole batch
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for index, component in enumerate(components):
        (row,) = torch.autograd.grad(component, x, create_graph=True, retain_graph=True)
        total = total + row.flatten(1)[:, index]
    return total


def _quadratic_forms(s: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    forms = []
    for probe in probes:
        (product,) = torch.autograd.grad((s * probe).sum(), x, create_graph=True, retain_graph=True)
        forms.append((product * probe).flatten(1).sum(1))
    return torch.stack(forms)
