"""LSGM: an autoencoder and the flow that is its prior, trained together (Vahdat, Kreis, Kautz 2021, arXiv:2106.05931)."""

import copy
import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta, field
from torch import Tensor, nn

from hamflow import flows, networks, parameterisation
from hamflow.dynamics import broadcast
from hamflow.errors import ConfigurationError
from hamflow.flows import GaussianFlow, HamiltonianFlow
from hamflow.flows.base import FLOWS
from hamflow.flows.importance import IMPORTANCE, LOW
from hamflow.methods.base import METHODS, Facts, Generator
from hamflow.methods.latent import Encoded, LatentGenerator, LatentModel, autoencoder_of, latent_facts
from hamflow.methods.vae import VariationalAutoencoder, drawn, negative_entropy
from hamflow.methods.velocity import VelocityField
from hamflow.networks.base import NETWORKS
from hamflow.parameterisation import Parameterisation
from hamflow.parameterisation.base import PARAMETERISATIONS
from hamflow.registry import NotNegative, Options, Positive
from hamflow.training.fit import Batch, Objective, Rows, Turn

VP = {"name": "oscillation", "alpha": 1.0}  # its path is that of the variance preserving SDE: x_t = cos t x_0 + sin t n
INACTIVE_LOGIT = -15.0  # of a channel that the encoder does not use: its prior stays normal


@METHODS.register("lsgm")
class LatentScoreModel(Options, kw_only=True, frozen=True):
    """E_q[-ln p(x | z)] + beta (E_q[ln q(z | x)] + CE(q(z | x) | p(z))) in the autoencoder; the velocity loss in the prior.

    The autoencoder starts as its parent of kind `vae`, which has learned latents near N(0, I). A step is two updates, each with
    a batch and times of its own: the autoencoder against the prior as it is, by the exact cross entropy; then the prior on
    latents as they are.

    Attributes:
        flow: {name, ...}, normal noise. By default the path of LSGM's variance preserving SDE.
        parameterisation: what the network predicts. network: {kind, ...}; None: that of the data set.
        weighting: of the prior's loss of the noise: unweighted, likelihood or variance; its times are importance-sampled.
        logit: of the network's share in the prior's velocity at first; the rest is that of normal latents.
        inactive: channels whose KL is below so many nats a coordinate at first keep the normal prior.
        kl_weight: beta.
    """

    parents: ClassVar = {"vae": "vae"}  # role: the kind of method that it starts from

    flow: Annotated[dict[str, Any], FLOWS.entry("name")] = field(default_factory=lambda: dict(VP))
    parameterisation: Annotated[str, PARAMETERISATIONS.name()] = "velocity"
    network: Annotated[dict[str, Any] | None, NETWORKS.entry("kind")] = None
    weighting: Literal[tuple(IMPORTANCE)] = "unweighted"  # type: ignore[valid-type]  # the names of a table
    logit: Annotated[float, Meta(ge=-20, le=20)] = -3.0
    inactive: NotNegative = 0.01
    kl_weight: Positive = 0.7

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "LatentScoreObjective":
        vae = copy.deepcopy(autoencoder_of(parents)).requires_grad_(True)
        facts = latent_facts(data, vae, self.network)
        flow = flows.resolve(self.flow, facts.sigma_data, facts.box)
        if not isinstance(flow, GaussianFlow) or type(flow).over_covariance is not GaussianFlow.over_covariance:
            raise ConfigurationError(
                f"the prior of LSGM needs white normal noise, which flow '{flow.name}' has not",
                why="the cross entropy follows from the prediction of that noise",
                fix="oscillation, diffusion or flow_matching; kind `latent` takes every flow without walls",
            )
        scheme = parameterisation.build(self.parameterisation, flow, facts.sigma_data)
        network = networks.build(facts.network, facts.shape, facts.classes, seed)
        return LatentScoreObjective(self, vae, MixedField(flow, scheme, network, facts.shape, facts.classes, self.logit))

    def generator(self, averaged: "LatentScoreObjective") -> LatentGenerator:
        channels = torch.zeros_like(averaged.prior.logit)
        return LatentGenerator(LatentModel(averaged.vae, averaged.prior, channels, torch.ones_like(channels)))


class MixedField(VelocityField):
    """(1 - w) V_N + w V, w = sigmoid(logit) of each channel: V_N is the velocity of N(0, I), V that of the network.

    Args:
        logit: of w at first.
    Source: mixed score prediction of Vahdat et al. 2021, section 3.2; for velocities [derived, theory 4.9].
    """

    flow: GaussianFlow

    def __init__(
        self,
        flow: HamiltonianFlow,
        scheme: Parameterisation,
        network: nn.Module,
        shape: tuple[int, ...],
        classes: int = 0,
        logit: float = -3.0,
    ):
        super().__init__(flow, scheme, network, shape, classes)
        self.logit = nn.Parameter(torch.full((shape[0], *[1] * (len(shape) - 1)), logit))

    def forward(self, x: Tensor, t: float | Tensor, label: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        normal = velocity_of_normal(self.flow, x, t)
        return normal + torch.sigmoid(self.logit).to(x) * (super().forward(x, t, label, augmentation) - normal)


def velocity_of_normal(flow: GaussianFlow, x: Tensor, t: float | Tensor) -> Tensor:
    """V(x, t) of data N(0, I): x_t and v_t are jointly normal, so V = Cov(v_t, x_t) / Var(x_t) x, like x."""
    a, b, a_dot, b_dot = flow.coefficients(broadcast(t, x))
    return (a * a_dot + b * b_dot) / (a**2 + b**2) * x


def noise_loss(
    field: VelocityField, z: Tensor, noise: Tensor, u: Tensor, weighting: str, label: Tensor | None = None
) -> Tensor:
    """An estimate of int w |n - eps|^2 ds, summed over coordinates, [N], at one importance-sampled time each.

    It is c (1 + sigma^2) |n - eps|^2. With n = a v_t - a' x_t and eps = a V - a' x_t this is c (a^2 + b^2) |v_t - V|^2, which
    is regular at a horizon where a = 0 (theory 4.9).

    Args:
        z: latents, [N, *shape]. noise: unit normal, like z. u: uniform numbers in (0, 1), [N]. weighting: w, of `IMPORTANCE`.
    """
    flow, law = field.flow, IMPORTANCE[weighting]
    assert isinstance(flow, GaussianFlow)
    t = flow.time(law.sigma(u)).clamp(max=flow.latest).to(z)
    x_t, v_t = flow.push(z, flow.couple(z, noise), t)
    a, b, _, _ = flow.coefficients(t)
    return law.constant * (a**2 + b**2) * (v_t - field(x_t, t, label)).square().flatten(1).sum(1)


def cross_entropy(field: VelocityField, z: Tensor, noise: Tensor, u: Tensor, label: Tensor | None = None) -> Tensor:
    """An estimate of CE(q | p) = E_q[-ln p(z)], nats, [N], of z smoothed to the earliest time, where s^2 = `LOW`.

    Args:
        z: of q(z | x), [N, *shape]. noise, u: as of `noise_loss`.
    Source: theorem 1 of Vahdat et al. 2021.
    """
    constant = z[0].numel() * math.log(2 * math.pi * math.e * LOW) / 2
    return noise_loss(field, z, noise, u, "likelihood", label) + constant


class LatentScoreObjective(Objective):
    """The two losses, a coordinate of x and of z.

    Args:
        method: weights. vae, prior: the players.
    """

    turns = (Turn("autoencoder", "vae"), Turn("prior", "prior"))

    def __init__(self, method: LatentScoreModel, vae: VariationalAutoencoder, prior: MixedField):
        super().__init__()
        self.method, self.vae, self.prior = method, vae, prior

    @torch.no_grad()
    def begin(self, rows: Rows) -> None:
        """Leave the channels that the encoder does not use to the normal prior."""
        laws = Encoded(self.vae, rows, self.prior.logit.device).laws()
        parts = [(mean.square() + log_variance.exp() - 1 - log_variance) / 2 for mean, log_variance in laws]
        divergence = torch.cat(parts).transpose(0, 1).flatten(1).mean(1)
        self.prior.logit[divergence < self.method.inactive] = INACTIVE_LOGIT

    def losses(self, turn: str, batch: Batch) -> Tensor:
        label = batch.label if self.prior.classes else None
        noise, u = batch.draw.normal("noise", self.vae.latent_shape).to(batch.x), batch.draw.uniform("time")
        with torch.set_grad_enabled(turn == "autoencoder"):
            mean, log_variance = self.vae.encode(batch.x)
            z = drawn(mean, log_variance, batch.draw.normal("latent", self.vae.latent_shape))
        if turn == "prior":
            return noise_loss(self.prior, z, noise, u, self.method.weighting, label) / z[0].numel()
        divergence = negative_entropy(log_variance) + cross_entropy(self.prior, z, noise, u, label=label)
        fidelity = self.vae.likelihood(batch.x, self.vae.decode(z))
        return (self.method.kl_weight * divergence - fidelity) / batch.x[0].numel()
