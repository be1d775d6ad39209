"""The cost of each sampler: from a number of function evaluations (NFE) to steps, and back. Does not import torch."""

from hamflow.errors import ConfigurationError
from hamflow.sampling import adaptive as _one_step_each  # noqa: F401  # registers a sampler
from hamflow.sampling import denoising as _registered  # noqa: F401  # the samplers that know the flow
from hamflow.sampling.solvers import SOLVERS, get

ADAPTIVE = "auto"  # the budget of a sampler that chooses its own steps and reports what it spent


def names() -> list[str]:
    """The samplers."""
    return list(SOLVERS)


def nfe_of(sampler: str, steps: int) -> int:
    """Network evaluations that `steps` steps of a fixed-step sampler cost."""
    solver = get(sampler)
    return solver.slope * steps + solver.offset


def steps_for(sampler: str, nfe: int | str, each: int = 1) -> int | str:
    """Steps that spend exactly `nfe` network evaluations ("auto" for an adaptive sampler).

    Args:
        each: evaluations of the network in one of the velocity: 2 under guidance.
    Raises:
        ConfigurationError: an unknown sampler, or a budget that it cannot spend exactly; names the nearest possible.
    """
    solver = get(sampler)
    slope, offset = each * solver.slope, each * solver.offset
    if slope == 0 or nfe == ADAPTIVE:
        if slope == 0 and nfe == ADAPTIVE:
            return ADAPTIVE
        kind = "chooses its own steps, so its nfe must be 'auto'" if slope == 0 else "takes a fixed integer nfe"
        raise ConfigurationError(f"{sampler} {kind}; got {nfe!r}", fix=f"`sampling.settings.{sampler}`")
    if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
        raise ConfigurationError(f"nfe of {sampler} must be an integer >= 1; got {nfe!r}")
    steps, left = divmod(nfe - offset, slope)
    if left == 0 and steps >= 1:
        return steps
    lower, upper = slope * max(steps, 1) + offset, slope * (steps + 1) + offset
    possible, guided = sorted({lower, upper}), " under guidance" if each > 1 else ""
    raise ConfigurationError(
        f"{sampler}{guided} spends {_formula(slope, offset)} network evaluations; got nfe = {nfe}",
        why="a budget that is not spent exactly would compare methods at different cost",
        fix=f"use {' or '.join(map(str, possible))}",
    )


def _formula(slope: int, offset: int) -> str:
    return ("steps" if slope == 1 else f"{slope}*steps") + (f" - {-offset}" if offset < 0 else "")
