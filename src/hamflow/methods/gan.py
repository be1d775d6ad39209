"""StyleGAN2-ADA: a generator against a discriminator whose pictures are augmented (arXiv:2006.06676)."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn.functional import softplus

from hamflow import draws
from hamflow.draws import Draw, SampleDraws
from hamflow.errors import ConfigurationError
from hamflow.methods.base import METHODS, Facts, Generator, SamplesOnly, Sampling, check_direct, classes_of
from hamflow.networks.stylegan2 import PointDiscriminator, PointGenerator, StyleDiscriminator, StyleGenerator
from hamflow.registry import Auto, Count, NotNegative, Options, Positive
from hamflow.training.ada import Pipe, augment
from hamflow.training.fit import Batch, Objective, Turn
from hamflow.training.warp import SMALLEST

Width = Annotated[int, Meta(ge=1, le=65536)]
Layers = Annotated[int, Meta(ge=1, le=64)]


@METHODS.register("gan")
class Adversarial(Options, kw_only=True, frozen=True):
    """A generator G(z) and a discriminator D, whose defaults are StyleGAN2-ADA's configuration cifar.

    Attributes:
        loss: logistic, softplus(-D(G)) against softplus(D(G)) + softplus(-D(x)) (Goodfellow et al. 2014); relativistic,
            softplus(D(x) - D(G)) against softplus(D(G) - D(x)), with the gradients at generated data penalised, too (R3GAN,
            arXiv:2501.05441).
        penalty: gamma of gamma/2 |dD/dx|^2 at the data (R1, Mescheder et al. 2018), before the augmentation; 0: none.
        penalty_every: steps from one to the next, which is then so many times as strong.
        pipe: augmentation of images: none; b, blitting; bg, geometry also; bgc, colour also. Points are not augmented.
        p: probability of each augmentation, or auto: p moves so that D has E sign D(x) = `target` at the data.
        target, ada_every, ada_kimg: of auto: after so many steps p moves up or down by their images / `ada_kimg`.
        latent: dimensions of z and w. mapping, label_mapping: layers of the mappings of z and of D's labels.
        mapping_rate: speed of learning of the mapping of z, relative to the other layers.
        base, widest: the width at a resolution of r pixels is base / r, at most widest. group: samples whose deviation D sees.
        width, depth: of the hidden layers of both networks, where the data are points.
    """

    samplers: ClassVar = ("direct",)

    loss: Literal["logistic", "relativistic"] = "logistic"
    penalty: NotNegative = 0.01
    penalty_every: Count = 16
    pipe: Pipe = "bgc"
    p: Annotated[float, Meta(ge=0, le=1)] | Auto = "auto"
    target: Annotated[float, Meta(gt=-1, lt=1)] = 0.6
    ada_every: Count = 4
    ada_kimg: Positive = 500.0
    latent: Width = 512
    mapping: Layers = 2
    label_mapping: Layers = 8
    mapping_rate: Positive = 0.01
    base: Count = 32768
    widest: Width = 512
    group: Count = 32
    width: Width = 64
    depth: Layers = 3

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> "AdversarialObjective":
        of_data = (data.shape, data.classes)
        if len(data.shape) == 3 and self.pipe != "none" and min(data.shape[1:]) < SMALLEST:
            raise ConfigurationError(
                f"images of {data.shape[1]}x{data.shape[2]} pixels cannot be augmented",
                why=f"the filter of the augmentation needs {SMALLEST} pixels a side",
                fix="set the method's option `pipe: none`",
            )
        with draws.seeded("cpu", seed, "gan", "weights"):
            if len(data.shape) == 3:
                generator: nn.Module = StyleGenerator(
                    *of_data, self.latent, self.mapping, self.base, self.widest, self.mapping_rate
                )
                discriminator: nn.Module = StyleDiscriminator(*of_data, self.label_mapping, self.base, self.widest, self.group)
            else:
                generator = PointGenerator(*of_data, self.latent, self.width, self.depth)
                discriminator = PointDiscriminator(*of_data, self.width, self.depth)
        return AdversarialObjective(self, generator, discriminator, data.shape, data.classes)

    def generator(self, averaged: "AdversarialObjective") -> "AdversarialGenerator":
        return AdversarialGenerator(averaged.generator, averaged.shape, averaged.classes)


class AdversarialObjective(Objective):
    """The losses of both players, and the probability p of the augmentations.

    Args:
        method: its options. shape: of one sample. classes: number of class labels, 0: unconditional.
    Attributes:
        p: of the augmentations. sign: mean sign of D at the latest data. signs: their sum since p moved last.
    """

    p: Tensor
    sign: Tensor
    signs: Tensor
    advice = "raise the method's `penalty`, or lower `training.players.discriminator.learning_rate`"

    def __init__(
        self, method: Adversarial, generator: nn.Module, discriminator: nn.Module, shape: tuple[int, ...], classes: int
    ):
        super().__init__()
        self.method, self.shape, self.classes = method, tuple(shape), classes
        self.generator, self.discriminator = generator, discriminator
        self.pipe: Pipe = method.pipe if len(shape) == 3 else "none"
        self.register_buffer("p", torch.tensor(0.0 if method.p == "auto" else float(method.p)))
        self.register_buffer("sign", torch.zeros(()))
        self.register_buffer("signs", torch.zeros(()))
        self.lazy = method.penalty > 0 and method.penalty_every > 1
        turns = (Turn("discriminator", "discriminator"), Turn("generator", "generator"))
        self.turns = (Turn("penalty", "discriminator", every=method.penalty_every), *turns) if self.lazy else turns
        self._signs: list[Tensor] = []  # of the microbatches of the update under way

    def losses(self, turn: str, batch: Batch) -> Tensor:
        label = batch.label if self.classes else None
        if turn == "penalty":
            return self.penalty(batch, label)
        relativistic = self.method.loss == "relativistic"
        if turn == "generator":
            fake = self.judge(generated(self.generator, batch.draw, label), label, batch.draw, "fake")
            if not relativistic:
                return softplus(-fake)
            return softplus(self.judge(batch.x, label, batch.draw, "real") - fake)
        with torch.no_grad():
            made = generated(self.generator, batch.draw, label)
        fake, real = self.judge(made, label, batch.draw, "fake"), self.judge(batch.x, label, batch.draw, "real")
        self._signs.append(real.detach().sign())
        loss = softplus(fake - real) if relativistic else softplus(fake) + softplus(-real)
        return loss if self.lazy or not self.method.penalty else loss + self.penalty(batch, label)

    def judge(self, x: Tensor, label: Tensor | None, draw: Draw, prefix: str) -> Tensor:
        """D at augmented data, [n]; the prefix tells the random numbers of data from those of others."""
        return self.discriminator(augment(x, draw, prefix, self.p, self.pipe), label)

    def penalty(self, batch: Batch, label: Tensor | None) -> Tensor:
        """gamma/2 |dD/dx|^2 at the data, [n], times the steps between two; relativistic: at generated data also."""
        at = {"real": batch.x}
        if self.method.loss == "relativistic":
            with torch.no_grad():
                at["fake"] = generated(self.generator, batch.draw, label)
        total = torch.zeros(len(batch.x)).to(batch.x)
        for name, x in at.items():
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                seen = self.judge(x, label, batch.draw, name).sum()
                (gradient,) = torch.autograd.grad(seen, x, create_graph=True)
            total = total + gradient.square().flatten(1).sum(1)
        return self.method.penalty_every * self.method.penalty / 2 * total

    def after(self, turn: str, batch: Batch) -> dict[str, Tensor]:
        if turn == "discriminator":
            self.sign.copy_(torch.cat(self._signs).mean())  # several processes: then the mean of theirs
            self._signs = []
        if turn != "generator":
            return {}
        self.signs += self.sign
        if (batch.step + 1) % self.method.ada_every == 0:
            if self.method.p == "auto" and self.pipe != "none":
                step = self.method.ada_every * batch.draw.batch / (1000 * self.method.ada_kimg)
                excess = self.signs / self.method.ada_every - self.method.target
                self.p += step * excess.sign()
                self.p.clamp_(min=0)
            self.signs.zero_()
        return {"sign": self.sign.clone(), "p": self.p.clone()}


def generated(network: Any, draw: Draw, label: Tensor | None) -> Tensor:
    """G(z) of random numbers by name, [n, *shape]."""
    like = next(network.parameters())
    planes = [draw.normal(f"plane {i}", shape).to(like) for i, shape in enumerate(network.planes)]
    return network(draw.normal("noise", (network.latent,)).to(like), label, planes)


class AdversarialGenerator(SamplesOnly):
    """What a trained generator can do: samples by one evaluation.

    Args:
        module: G. shape: of one sample. classes: number of class labels, 0: unconditional.
    """

    what = "a GAN"
    why = "its generator draws samples from a law whose density it does not know"
    fix = "ask for samples (sampler 'direct', nfe 1), or take a method of kind 'velocity'"

    def __init__(self, module: nn.Module, shape: tuple[int, ...], classes: int):
        self.module, self.shape, self.classes = module, shape, classes
        self.sampling = Sampling()
        self.metadata: dict[str, Any] = {}

    @torch.no_grad()
    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, float64 [n, *shape], NFE 1."""
        check_direct("a GAN", sampler, nfe, "its generator makes a sample in one evaluation, and there is no equation to solve")
        label = classes_of(self.classes, seeds, label)
        device = next(self.module.parameters()).device
        parts = [torch.zeros(0, *self.shape, dtype=torch.float64, device=device)]
        for start in range(0, len(seeds), self.sampling.batch):
            part = slice(start, start + self.sampling.batch)
            classes = None if label is None else label[part].to(device)
            parts.append(generated(self.module, SampleDraws(seeds[part]), classes).double())
        return torch.cat(parts), 1
