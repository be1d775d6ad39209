"""Variational autoencoders of images (arXiv:1312.6114): of themselves, and as the first stage of a latent flow."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from hamflow import draws
from hamflow.methods.base import METHODS, Facts, Generator, Sampling, check_direct, classes_of
from hamflow.networks import autoencoder
from hamflow.networks.likelihoods import DiscretisedLogistic, Likelihood, Normal
from hamflow.registry import NotNegative, Options, Positive
from hamflow.training.fit import Batch, Objective, Turn

LOG_VARIANCES = (-30.0, 20.0)  # of q(z | x): beyond them exp would leave the numbers that float32 knows
IMPORTANCE = 32  # latents a datum in the bound of `VAEGenerator.log_density`


@METHODS.register("vae")
class VariationalAutoencoding(Options, kw_only=True, frozen=True):
    """min E_q[-ln p(x | z)] + beta KL(q(z | x) | N(0, I)).

    Attributes:
        latent: channels of z. channels: width of encoder and decoder at full resolution.
        multipliers: width of each resolution as a multiple of `channels`; each one after the first halves height and width.
        blocks: residual blocks a resolution.
        likelihood: p(x | z) about the decoder's output, with one learned scale: normal, or a discretised logistic.
        levels: values of a pixel that the discretised logistic knows: 256, of digits 17.
        scale: of p(x | z) at first, data units.
        kl_weight: beta at the end; 1: the evidence bound, below: sharper reconstructions and a wider latent law.
        anneal_kimg: beta rises from 0 to its end over so many thousand images.
    """

    samplers: ClassVar = ("direct",)

    latent: Annotated[int, Meta(ge=1, le=1024)] = 4
    channels: Annotated[int, Meta(ge=4, le=4096)] = 32
    multipliers: Annotated[tuple[Annotated[int, Meta(ge=1, le=64)], ...], Meta(min_length=1, max_length=8)] = (1, 2)
    blocks: Annotated[int, Meta(ge=1, le=64)] = 1
    likelihood: Literal["normal", "logistic"] = "normal"
    levels: Annotated[int, Meta(ge=2, le=65536)] = 256
    scale: Positive = 0.5
    kl_weight: Positive = 0.7
    anneal_kimg: NotNegative = 0.0

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "EvidenceObjective":
        shape = autoencoder.latent_shape(data.shape, self.latent, self.multipliers)
        form = (self.channels, self.multipliers, self.blocks)
        with draws.seeded("cpu", seed, "vae", "weights"):
            encode = autoencoder.encoder(data.shape[0], 2 * self.latent, *form)
            decode = autoencoder.decoder(data.shape[0], self.latent, *form)
        law = Normal(self.scale) if self.likelihood == "normal" else DiscretisedLogistic(self.scale, self.levels)
        vae = VariationalAutoencoder(encode, decode, law, data.shape, shape)
        return EvidenceObjective(vae, self.kl_weight, self.anneal_kimg)

    def generator(self, averaged: "EvidenceObjective") -> "VAEGenerator":
        return VAEGenerator(averaged.vae)


class VariationalAutoencoder(nn.Module):
    """q(z | x) = N(mean, e^log_variance) and p(x | z).

    Args:
        encoder: x -> mean and log variance, one after the other in dimension 1. decoder: z -> the centre of p(x | z).
        likelihood: (x, centre) -> ln p(x | z), [N]. shape, latent_shape: of x and of z.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        shape: tuple[int, ...],
        latent_shape: tuple[int, ...],
    ):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.likelihood: Any = likelihood
        self.shape, self.latent_shape = tuple(shape), tuple(latent_shape)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), [N, *latent_shape] each; the latter within `LOG_VARIANCES`."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES)

    def draw(self, x: Tensor, noise: Tensor) -> Tensor:
        """z ~ q(z | x) from unit normal noise, [N, *latent_shape]."""
        return drawn(*self.encode(x), noise)

    def decode(self, z: Tensor) -> Tensor:
        """The centre of p(x | z), [N, *shape]."""
        return self.decoder(z)

    def evidence_bound(self, x: Tensor, noise: Tensor, kl_weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """(E_q[ln p(x | z)] - beta KL, KL), nats, [N] each: with beta = 1 the bound of ln p(x), by one z a datum."""
        mean, log_variance = self.encode(x)
        kl = divergence(mean, log_variance)
        return self.likelihood(x, self.decode(drawn(mean, log_variance, noise))) - kl_weight * kl, kl


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z of N(mean, e^log_variance) from unit normal noise."""
    return mean + (log_variance / 2).exp() * noise.to(mean)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, e^log_variance) | N(0, I)), nats, [N]."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1) / 2


def negative_entropy(log_variance: Tensor) -> Tensor:
    """E_q[ln q(z | x)] of a normal law, nats, [N]."""
    return -(1 + math.log(2 * math.pi) + log_variance).flatten(1).sum(1) / 2


class EvidenceObjective(Objective):
    """-(E_q[ln p(x | z)] - beta KL) a coordinate of x, nats."""

    turns = (Turn("vae", "vae"),)

    def __init__(self, vae: VariationalAutoencoder, kl_weight: float, anneal_kimg: float = 0.0):
        super().__init__()
        self.vae, self.kl_weight, self.anneal_kimg = vae, kl_weight, anneal_kimg
        self._divergences: list[Tensor] = []  # of the microbatches of the update under way

    def weight(self, kimg: float) -> float:
        """beta after so many thousand images."""
        return self.kl_weight * (min(1.0, kimg / self.anneal_kimg) if self.anneal_kimg else 1.0)

    def losses(self, turn: str, batch: Batch) -> Tensor:
        weight = self.weight(batch.step * batch.draw.batch / 1000)
        bound, kl = self.vae.evidence_bound(batch.x, batch.draw.normal("latent", self.vae.latent_shape), weight)
        self._divergences.append(kl.detach())
        return -bound / batch.x[0].numel()

    def after(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        divergences, self._divergences = torch.cat(self._divergences), []
        return {"kl": divergences.mean()}  # nats a datum


class VAEGenerator:
    """What a trained autoencoder can do.

    Args:
        vae: the model.
    """

    classes = 0

    def __init__(self, vae: VariationalAutoencoder):
        self.module, self.shape = vae, vae.shape
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoded mean of q(z | x), [N, *shape], data units."""
        return self.module.decode(self.module.encode(x.to(next(self.module.parameters())))[0])

    @torch.no_grad()
    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape]: the centre of p(x | z) of z ~ N(0, I)."""
        check_direct("a variational autoencoder", sampler, nfe)
        classes_of(self.classes, seeds, label)
        return decoded(self.module, draws.SampleDraws(seeds).normal("latent", self.module.latent_shape), self.sampling.batch), 1

    @torch.no_grad()
    def log_density(self, x: Tensor, latents: int = IMPORTANCE, seed: int = 0) -> Tensor:
        """A lower bound of ln p(x), [N], nats, importance-weighted over latents that the encoder draws.

        Args:
            x: [N, *shape], data units. latents: a datum, 1: the evidence bound. seed: of their draw.
        Source: Burda, Grosse, Salakhutdinov 2016 (arXiv:1509.00519).
        """
        like, rng = next(self.module.parameters()), draws.generator(seed, "vae", "bound", latents)
        rows = x.to(like)
        mean, log_variance = self.module.encode(rows)
        weights = []
        for _ in range(latents):
            noise = draws.normal_like(rng, mean)
            z = drawn(mean, log_variance, noise)
            inner = (noise.square() + log_variance - z.square()).flatten(1).sum(1) / 2  # ln N(z; 0, I) - ln q(z | x)
            weights.append(self.module.likelihood(rows, self.module.decode(z)) + inner)
        return (torch.logsumexp(torch.stack(weights), 0) - math.log(latents)).to(x)


def decoded(vae: VariationalAutoencoder, z: Tensor, batch: int) -> Tensor:
    """The centres of p(x | z), float64 [n, *shape], a batch at a time."""
    like = next(vae.parameters())
    parts = [torch.zeros(0, *vae.shape, dtype=torch.float64, device=like.device)]
    return torch.cat(parts + [vae.decode(part.to(like)).double() for part in z.split(batch) if len(part)])
