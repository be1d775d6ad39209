"""A flow in the latent space of an autoencoder that was trained before, and does not change: latent diffusion, of any force."""

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hamflow.draws import BatchDraws
from hamflow.errors import ConfigurationError
from hamflow.flows import LinearFlow
from hamflow.flows.base import FLOWS
from hamflow.flows.times import LAWS
from hamflow.methods.base import METHODS, Facts, Generator, Sampling
from hamflow.methods.vae import VAEGenerator, VariationalAutoencoder, decoded, drawn, negative_entropy
from hamflow.methods.velocity import FlowGenerator, VelocityField, VelocityObjective, VelocityRegression
from hamflow.networks.base import NETWORKS
from hamflow.parameterisation.base import PARAMETERISATIONS
from hamflow.registry import Options
from hamflow.sampling.likelihood import LogDensity
from hamflow.training.fit import Batch, Rows

MEASURED = 10_000  # rows at most, from which the spread of the latents is taken
AT_A_TIME = 500
NO_BOX = (-1.0, 1.0)  # latents have none; flows that need one are refused


@METHODS.register("latent")
class LatentFlow(Options, kw_only=True, frozen=True):
    """Velocity regression on latents of a frozen autoencoder, brought to zero mean and unit spread channel by channel.

    Its own label in tables should say that it has two stages: LSGM, of kind `lsgm`, trains both together.

    Attributes:
        flow, parameterisation, times: as of kind `velocity`; data units are those of the standardised latents.
        network: {kind, ...}, of the velocity; None: that of the data set.
    """

    parents: ClassVar = {"vae": "vae"}  # role: the kind of method that it starts from

    flow: Annotated[dict[str, Any], FLOWS.entry("name")]
    parameterisation: Annotated[str, PARAMETERISATIONS.name()]
    times: Annotated[dict[str, Any], LAWS.entry("law")]
    network: Annotated[dict[str, Any] | None, NETWORKS.entry("kind")] = None

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "LatentObjective":
        vae = autoencoder_of(parents)
        inner = VelocityRegression(flow=self.flow, parameterisation=self.parameterisation, times=self.times)
        velocity = inner.objective(latent_facts(data, vae, self.network), {}, seed)
        check_linear(velocity.field)
        return LatentObjective(velocity, vae)

    def generator(self, averaged: "LatentObjective") -> "LatentGenerator":
        return LatentGenerator(LatentModel(averaged.vae, averaged.field, averaged.centre, averaged.spread))


def autoencoder_of(parents: dict[str, Generator]) -> VariationalAutoencoder:
    """The autoencoder among the parents of a latent model. Raises ConfigurationError, if there is none."""
    fix = "give its method an entry `parents: {vae: METHOD}` with a method of kind `vae`"
    if "vae" not in parents:
        raise ConfigurationError("a latent model has no autoencoder to start from", fix=fix)
    if not isinstance(parents["vae"], VAEGenerator):
        raise ConfigurationError("the parent `vae` of a latent model is no variational autoencoder", fix=fix)
    return parents["vae"].module


def latent_facts(data: Facts, vae: VariationalAutoencoder, network: dict[str, Any] | None) -> Facts:
    """What a model of the latents is told of them."""
    return Facts(
        name=data.name,
        shape=vae.latent_shape,
        classes=data.classes,
        sigma_data=1.0,
        box=NO_BOX,
        network=data.network if network is None else network,
    )


def check_linear(field: VelocityField) -> None:
    """Raise ConfigurationError for a flow that needs the box of its data, as the reflection does."""
    if not isinstance(field.flow, LinearFlow):
        raise ConfigurationError(
            f"flow '{field.flow.name}' moves data in a box, and latents have none", fix="a flow without walls, as oscillation"
        )


class LatentObjective(VelocityObjective):
    """The velocity loss of encoded rows, z ~ q(z | x).

    Args:
        velocity: the loss of standardised latents. vae: stays as it is.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, velocity: VelocityObjective, vae: VariationalAutoencoder):
        super().__init__(velocity.field, velocity.times, velocity.metric)
        self.vae = vae.requires_grad_(False)
        channels = (vae.latent_shape[0], *[1] * (len(vae.latent_shape) - 1))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))

    def begin(self, rows: Rows) -> None:
        encoded = Encoded(self.vae, rows, self.centre.device)
        mean, variance = encoded.moments()
        self.centre.copy_(mean.reshape(self.centre.shape))
        self.spread.copy_(variance.sqrt().reshape(self.spread.shape))
        super().begin(encoded)  # a coloured flow takes the covariance up to the standardisation

    def losses(self, turn: str, batch: Batch) -> Tensor:
        with torch.no_grad():
            z = self.vae.draw(batch.x, batch.draw.normal("latent", self.vae.latent_shape))
        return super().losses(turn, batch._replace(x=(z - self.centre) / self.spread))


class Encoded:
    """Rows of latents, as `hamflow.training.fit.Rows`.

    Args:
        vae: the encoder. rows: of data. device: where the encoder is.
    """

    def __init__(self, vae: VariationalAutoencoder, rows: Rows, device: torch.device):
        self.vae, self.rows, self.device, self.count = vae, rows, device, rows.count
        self.centre, self.spread = torch.zeros(1), torch.ones(1)

    @torch.no_grad()
    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """(z [n, *latent_shape], labels) of some rows, z drawn by noise that is a function of the first of them."""
        x, label = self.rows.batch(indices)
        mean, log_variance = self.vae.encode(x.to(self.device))
        noise = BatchDraws(0, "latent", "encoded", int(indices[0]), batch=len(indices)).normal("latent", self.vae.latent_shape)
        z = drawn(mean, log_variance, noise.to(mean))
        return (z - self.centre) / self.spread, label

    @torch.no_grad()
    def laws(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and log variance of q(z | x) of evenly spaced rows, `MEASURED` at most, some at a time."""
        some = np.unique(np.linspace(0, self.count - 1, min(self.count, MEASURED)).astype(np.int64))
        parts = [some[i : i + AT_A_TIME] for i in range(0, len(some), AT_A_TIME)]
        return [self.vae.encode(self.rows.batch(part)[0].to(self.device)) for part in parts]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of z of each channel, [C]; keeps them, so that `batch` gives standardised latents."""
        means, logs = (torch.cat(parts).transpose(0, 1).flatten(1).double() for parts in zip(*self.laws(), strict=True))
        mean, variance = means.mean(1), means.var(1, correction=0) + logs.exp().mean(1)
        shape = (len(mean), *[1] * (len(self.vae.latent_shape) - 1))
        self.centre, self.spread = mean.float().reshape(shape), variance.sqrt().float().reshape(shape)
        return mean, variance


class LatentModel(nn.Module):
    """An autoencoder and a velocity of its latents (z - centre) / spread."""

    centre: Tensor
    spread: Tensor

    def __init__(self, vae: VariationalAutoencoder, field: VelocityField, centre: Tensor, spread: Tensor):
        super().__init__()
        self.vae, self.field = vae, field
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)


class LatentGenerator:
    """What a latent model can do. It has no score of data: its velocity moves latents.

    Args:
        model: its parts.
    """

    def __init__(self, model: LatentModel):
        self.module, self.shape, self.classes = model, model.vae.shape, model.field.classes
        self.latent = FlowGenerator(model.field)
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape]: solved in the space of latents, then decoded; the NFE are those of the velocity."""
        self.latent.sampling = self.sampling
        z, spent = self.latent.sample(seeds, sampler, nfe, label)
        model = self.module
        return decoded(model.vae, model.centre + model.spread * z.to(model.centre.device), self.sampling.batch), spent

    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoded mean of q(z | x), [N, *shape], data units."""
        return VAEGenerator(self.module.vae).reconstruct(x)

    def density_bound(self, x: Tensor, label: Tensor | None = None, seed: int = 0, **options: Any) -> LogDensity:
        """E_q[ln p(x | z) + ln p(z) - ln q(z | x)] <= ln p(x), nats, by one z a datum: a bound, no density (theory 4.9).

        Args:
            x: [N, *shape], data units. label: int64 [N] for a conditional model. seed: of z.
            options: of `hamflow.sampling.likelihood.log_density`, which gives ln p(z).
        Raises:
            NotOffered: the flow does not start from a normal law.
        """
        model = self.module
        rows = x.to(model.centre)
        with torch.no_grad():
            mean, log_variance = model.vae.encode(rows)
            noise = BatchDraws(seed, "latent", "bound", batch=len(x)).normal("latent", model.vae.latent_shape)
            z = drawn(mean, log_variance, noise.to(mean))
            rest = model.vae.likelihood(rows, model.vae.decode(z)) - negative_entropy(log_variance)
        inner = self.latent.log_density((z - model.centre) / model.spread, label, **options)
        volume = model.spread.double().log().sum() * (mean[0].numel() / len(model.spread))
        return inner._replace(values=inner.values + rest.double() - volume)
