"""Hamiltonian score matching: a score network against a velocity predictor (arXiv:2410.20470)."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from hamflow import networks
from hamflow.dynamics import SCHEMES, simulate
from hamflow.methods.base import METHODS, Facts, Generator
from hamflow.methods.score_matching import ScoreGenerator, score_field
from hamflow.networks.base import NETWORKS
from hamflow.registry import Count, Options, Positive
from hamflow.score.fields import ScoreField, VelocityPredictor
from hamflow.score.objectives import gain
from hamflow.training.fit import Batch, Objective, Turn

Form = Literal["direct", "scaled", "residual"]  # of the velocity predictor
LOG_SPAN = 100.0  # the log-uniform law of times covers [T / 100, T]


@METHODS.register("hsm")
class HamiltonianScoreMatching(Options, kw_only=True, frozen=True):
    """min over the score, max over the velocity predictor, of E w(t) (2 V(x_t, t) . v_t - |V(x_t, t)|^2).

    The defaults are those that did best on the pilot mixture.

    Attributes:
        horizon: T, time units; omega T < pi/2 for the largest curvature omega^2 of -log p, so about the smallest scale of the
            data. At T = 0 every score would have discrepancy zero.
        scheme, integration_steps: of `hamflow.dynamics.simulate`; each sample's own duration t is cut into that many steps.
        time_law: uniform on [0, T], or log_uniform on [T/100, T].
        weight, weight_floor: constant: w = 1. inverse_square: w = 1 / (t^2 + weight_floor T^2), as D(t) ~ t^2 E|s - score|^2.
        critic_steps: critic updates for each update of the score; three or more for the scaled form.
        antithetic: each sample comes with v_0 and with -v_0 (twice the trajectories).
        runaway: largest root mean square velocity per coordinate that is no divergence; it is 1 where score and data agree.
        form: of the velocity predictor, see `VelocityPredictor`.
        critic: network of the velocity predictor, {kind, ...}; None: as the score's.
    """

    horizon: Positive = 0.6
    scheme: Literal[tuple(SCHEMES)] = "leapfrog"  # type: ignore[valid-type]  # the names of a table
    integration_steps: Count = 3
    time_law: Literal["uniform", "log_uniform"] = "uniform"
    weight: Literal["constant", "inverse_square"] = "inverse_square"
    weight_floor: Positive = 0.03
    critic_steps: Count = 3
    antithetic: bool = True
    runaway: Positive = 100.0
    form: Form = "scaled"
    critic: Annotated[dict[str, Any] | None, NETWORKS.entry("kind")] = None

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "HamiltonianObjective":
        force = score_field(data, seed)
        network = networks.build(data.network if self.critic is None else self.critic, data.shape, 0, seed, "critic")
        critic = VelocityPredictor(network, self.form, self.horizon, data.sigma_data)
        return HamiltonianObjective(self, force, critic)

    def generator(self, averaged: "HamiltonianObjective") -> ScoreGenerator:
        return ScoreGenerator(averaged.force, averaged.force.shape)


class HamiltonianObjective(Objective):
    """The weighted gain 2 V . v_t - |V|^2, which the critic raises and the force lowers.

    Args:
        method: times, weights, integration.
        force: module (x, t) -> F, the score being learned.
        critic: module (x, t, force) -> V; `force` is passed for predictors that use it, with constant weights.
    """

    advice = (
        "lower `learning_rate` or `horizon` (omega T < pi/2), or raise `critic_steps`; trajectories whose root mean square "
        "velocity is beyond `runaway` have no loss either"
    )

    def __init__(self, method: HamiltonianScoreMatching, force: ScoreField, critic: nn.Module):
        super().__init__()
        self.method, self.critic = method, critic
        self.force: ScoreField = force
        self.turns = (Turn("critic", "critic", repeats=method.critic_steps), Turn("force", "force"))

    def losses(self, turn: str, batch: Batch) -> Tensor:
        t, x, v = self.start(batch)
        with torch.set_grad_enabled(turn == "force"):  # the critic is fitted to motion that it cannot change
            x, v = simulate(self.force, x, v, t, self.method.integration_steps, self.method.scheme)
        value = self.weight(t) * self.gain(t, x, v)
        tame = v.detach().square().mean().sqrt() <= self.method.runaway  # a flag of the device: no step waits for it
        value = torch.where(tame & x.detach().isfinite().all(), value, torch.nan)
        return (value if turn == "force" else -value).view(-1, len(batch.x)).mean(0)

    def start(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(t, x_0, v_0): durations [n], positions and velocities [n, *dims]; with antithetic pairs 2n of each."""
        x, u = batch.x, batch.draw.uniform("time")
        v = batch.draw.normal("velocity", x.shape[1:]).to(x)
        t = (self.method.horizon * (u if self.method.time_law == "uniform" else LOG_SPAN ** (u - 1))).to(x)
        if self.method.antithetic:
            t, x, v = torch.cat([t, t]), torch.cat([x, x]), torch.cat([v, -v])
        return t, x, v

    def gain(self, t: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """2 V . v_t - |V|^2, [N]; the critic sees the force with constant weights (envelope theorem, theory 2.8)."""
        constant = {name: value.detach() for name, value in self.force.named_parameters()}

        def frozen(x: Tensor, t: float | Tensor) -> Tensor:
            return torch.func.functional_call(self.force, constant, (x, t))

        return gain(self.critic(x, t, frozen), v)

    def weight(self, t: Tensor) -> Tensor:
        """w(t), [N]."""
        if self.method.weight == "constant":
            return torch.ones_like(t)
        return 1 / (t.square() + self.method.weight_floor * self.method.horizon**2)
