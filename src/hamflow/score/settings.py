"""The settings of Hamiltonian score matching, checked when they are made."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hamflow.dynamics import SCHEMES
from hamflow.errors import ConfigurationError, nearest

TIME_LAWS = ("uniform", "log_uniform")
WEIGHTS = ("constant", "inverse_square")
DECAYS = ("none", "cosine")


@dataclass(frozen=True)
class HamiltonianSettings:
    """How `HamiltonianScoreMatching` trains. The defaults are those that did best on the pilot mixture.

    Attributes:
        horizon: T, time units, > 0; omega T < pi/2 for the largest curvature omega^2 of -log p, so about the
            smallest scale of the data.
        scheme, integration_steps: of `hamflow.dynamics.simulate`; each sample's own duration t is cut into
            that many steps.
        time_law: uniform on [0, T], or log_uniform on [T/100, T].
        weight, weight_floor: constant: w = 1. inverse_square: w = 1 / (t^2 + weight_floor T^2), since D(t) ~
            t^2 E|s - score|^2.
        critic_steps: critic updates for each update of the score, >= 1; three or more in practice.
        batch, antithetic: samples an update; with antithetic each comes with v_0 and with -v_0 (twice the
            trajectories).
        steps: updates of the score.
        learning_rate, critic_learning_rate, betas: of the two Adam optimisers.
        decay: of both learning rates: cosine to zero at the last step, or none. It removes the noise of the
            min-max at its end.
        ema: factor of the exponential moving average of the weights of both networks, in [0, 1).
        gradient_clip: largest gradient norm; 0: none.
        runaway: largest root mean square velocity per coordinate that is no divergence; it is 1 where score
            and data agree.
        state_every: score updates between saved states.
    """

    horizon: float = 0.6
    scheme: str = "leapfrog"
    integration_steps: int = 3
    time_law: str = "uniform"
    weight: str = "inverse_square"
    weight_floor: float = 0.03
    critic_steps: int = 3
    batch: int = 256
    antithetic: bool = True
    steps: int = 2000
    learning_rate: float = 1e-3
    critic_learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.5, 0.999)
    decay: str = "cosine"
    ema: float = 0.99
    gradient_clip: float = 1.0
    runaway: float = 100.0
    state_every: int = 200

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        why = {
            "horizon": "at T = 0 every score has discrepancy zero",
            "critic_steps": "the score would follow the gradient of a predictor that was never fitted",
        }
        for name in ("integration_steps", "critic_steps", "batch", "steps", "state_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"`{name}` must be an integer >= 1, got {value!r}", why=why.get(name, ""))
        for name in ("horizon", "learning_rate", "critic_learning_rate", "weight_floor", "runaway"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(f"`{name}` must be a number > 0, got {value!r}", why=why.get(name, ""))
        if not self.gradient_clip >= 0:
            raise ConfigurationError(f"`gradient_clip` must be >= 0, got {self.gradient_clip!r}")
        for name, value in (("ema", self.ema), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise ConfigurationError(f"`{name}` must be in [0, 1), got {value!r}")
        legal = {"scheme": SCHEMES, "time_law": TIME_LAWS, "weight": WEIGHTS, "decay": DECAYS}
        for name, known in legal.items():
            if getattr(self, name) not in known:
                raise ConfigurationError(f"unknown `{name}` '{getattr(self, name)}'", fix=nearest(getattr(self, name), known))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "HamiltonianSettings":
        """The settings of a parameter entry. Raises ConfigurationError for a key that does not exist, naming
        the nearest."""
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigurationError(f"Hamiltonian score matching has no setting '{key}'", fix=nearest(key, known))
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a spec or a file."""
        return {**asdict(self), "betas": list(self.betas)}
