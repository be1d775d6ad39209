"""Networks as score fields and as velocity predictors."""

from torch import Tensor, nn

from hamflow.dynamics import broadcast
from hamflow.dynamics.forces import Force
from hamflow.errors import ConfigurationError, nearest

FORMS = ("direct", "scaled", "residual")


class ScoreField(nn.Module):
    """s(x) = network(x / spread) / spread, a force without time dependence.

    Args:
        network: forward(x, noise_label), shaped as x. spread: root mean square of the data, data units. shape: of one sample.
    """

    def __init__(self, network: nn.Module, spread: float = 1.0, shape: tuple[int, ...] = ()):
        super().__init__()
        self.network, self.spread, self.shape = network, float(spread), tuple(shape)

    def forward(self, x: Tensor, t: float | Tensor = 0.0) -> Tensor:
        """[N, *dims] -> [N, *dims], data units^-1."""
        return self.network(x / self.spread, x.new_zeros(1)) / self.spread


class VelocityPredictor(nn.Module):
    """V(x, t), the critic of Hamiltonian score matching.

    The optimum is t (F - grad log p) + O(t^3) (theory 2.4). With N = network(x / spread, t / horizon) the forms are
        direct:   V = N
        scaled:   V = t N / spread:  N need not learn the factor t
        residual: V = t (F - N / spread):  to leading order the target of N is the score, which does not move with the force
    Args:
        network: forward(x, noise_label), shaped as x. form: one of FORMS.
        horizon: T, time units; its network sees t / T. spread: root mean square of the data, data units.
    """

    def __init__(self, network: nn.Module, form: str = "scaled", horizon: float = 1.0, spread: float = 1.0):
        super().__init__()
        if form not in FORMS:
            raise ConfigurationError(f"unknown form '{form}' of the velocity predictor", fix=nearest(form, FORMS))
        self.network, self.form, self.horizon, self.spread = network, form, float(horizon), float(spread)

    def forward(self, x: Tensor, t: Tensor, force: Force | None = None) -> Tensor:
        """x [N, *dims], t [N] -> [N, *dims], a velocity; `force` is needed by the residual form and treated as a constant."""
        field = self.network(x / self.spread, t / self.horizon)
        if self.form == "direct":
            return field
        field = field / self.spread
        if self.form == "residual":
            if force is None:
                raise ConfigurationError("a velocity predictor of the residual form must be given the force")
            field = force(x, t) - field
        return broadcast(t, x) * field
