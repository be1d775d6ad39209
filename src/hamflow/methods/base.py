"""What a kind of method is, and how a trained one is found again in its checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hamflow.errors import CheckpointError, ConfigurationError, NotOffered
from hamflow.files import load_tensors
from hamflow.registry import Count, Grid, Name, NotNegative, Options, Positive, Registry
from hamflow.training.fit import Objective

METHODS: Registry = Registry("kind of method", "hamflow.methods")

Size = Annotated[int, Meta(ge=1, le=65536)]


class Facts(Options, kw_only=True, frozen=True):
    """What a training is told of its data, and of the network that was chosen for them.

    Attributes:
        name: of the data set. shape: of one sample, (C, H, W) or (D,). classes: number of class labels, 0: unconditional.
        sigma_data: root mean square about the mean, data units. box: (low, high) of every coordinate.
        network: {kind, ...}.
    """

    name: Name
    shape: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=3)]
    classes: Annotated[int, Meta(ge=0, le=1_000_000)]
    sigma_data: Annotated[float, Meta(gt=0, le=1e9)]
    box: tuple[float, float]
    network: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return msgspec.json.decode(msgspec.json.encode(self))

    @classmethod
    def of(cls, spec: Mapping[str, Any], dataset: Any) -> "Facts":
        """The facts of a data set for a training spec. Raises ConfigurationError for a conditional model without classes."""
        if spec["conditional"] and not dataset.classes:
            raise ConfigurationError(
                f"`datasets.{dataset.name}.conditional` is true, but these data have no classes",
                fix="set it to false; source `images` takes sub-folders for classes",
            )
        return cls(
            name=dataset.name,
            shape=dataset.shape,
            classes=dataset.classes if spec["conditional"] else 0,
            sigma_data=dataset.sigma_data,
            box=dataset.box,
            network=spec["network"],
        )


class Sampling(Options, kw_only=True, frozen=True):
    """How a generator spends its evaluations; the defaults are those of Karras et al. 2022.

    Attributes:
        grid: edm (rho-spaced sigma), uniform in t, power (t^(1/2) evenly spaced), or numbers that fall from 1 to 0: the
            share of the horizon that is left, at evenly spaced shares of the steps. rho: curvature of the edm grid.
        sigma_min, sigma_max: its noise levels, data units. batch: samples at a time; without influence on them.
        guidance: w, of classifier-free guidance of a conditional model (Ho, Salimans 2022, arXiv:2207.12598, there 1 + w);
            1: none.
    """

    grid: Grid = "edm"
    rho: Annotated[float, Meta(ge=1)] = 7.0
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    batch: Count = 1024
    guidance: NotNegative = 1.0


@runtime_checkable
class Generator(Protocol):
    """A trained method. `velocity`, `score` and `log_density` exist where the method has them.

    Attributes:
        shape: of one sample. classes: number of class labels, 0: unconditional. sampling: may be replaced.
        module: its weights. metadata: of the checkpoint that it was loaded from.
    """

    shape: tuple[int, ...]
    classes: int
    sampling: Sampling
    module: nn.Module
    metadata: dict[str, Any]

    def sample(self, seeds: range, sampler: str, nfe: int | str, label: Tensor | None = None) -> tuple[Tensor, int]:
        """Samples, [n, *shape] in data units, sample i a function of seeds[i], and the NFE that each cost.

        Args:
            label: int64 [n], the classes; None: of a conditional method, seeds modulo the number of classes.
        Raises:
            NotOffered: the method does not generate, or not with this sampler.
            ConfigurationError: labels of a method without classes, or beyond them (`classes_of`).
        """


class SamplesOnly:
    """A generator of samples that has nothing else, and says so.

    Attributes:
        what, why, fix: of the error: what it is, why it lacks the rest, and where that is to be had.
    """

    what: ClassVar[str]
    why: ClassVar[str]
    fix: ClassVar[str]

    def velocity(self, x: Tensor, t: float | Tensor, label: Tensor | None = None) -> Tensor:
        """There is none. Raises NotOffered."""
        raise self._lacks("velocity")

    def score(self, y: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """There is none. Raises NotOffered."""
        raise self._lacks("score")

    def log_density(self, x: Tensor, label: Tensor | None = None, **options: Any) -> Tensor:
        """There is none. Raises NotOffered."""
        raise self._lacks("likelihood")

    def _lacks(self, asked: str) -> NotOffered:
        return NotOffered(f"{self.what} has no {asked}", why=self.why, fix=self.fix)


def classes_of(count: int, seeds: range, label: Tensor | None, unlabelled: bool = False) -> Tensor | None:
    """The classes of samples, int64 [n]: those asked for; else, of a conditional method, the seeds modulo their number.

    The latter are a choice of this library: a sample depends on its seed alone, and consecutive seeds have every class equally
    often, whatever its share of the data. `hamflow sample` asks for the shares of the data instead.

    Args:
        count: number of classes of the method, 0: unconditional.
        label: int64 [n] or None.
        unlabelled: whether the method has learned samples without a class, whose label is -1.
    Raises:
        ConfigurationError: labels for a method without classes, too few or too many, or one that is no class.
    """
    if label is None:
        return torch.tensor([seed % count for seed in seeds]) if count else None
    if not count:
        raise ConfigurationError(
            "samples of a class are asked for, but the model was trained without classes",
            why="it would ignore the class",
            fix="ask for no class, or train with `conditional: true` in the entry of the data set",
        )
    if len(label) != len(seeds):
        raise ConfigurationError(f"{len(label)} labels are given for {len(seeds)} samples", fix="one label a sample")
    lowest = -1 if unlabelled else 0
    if wrong := [int(one) for one in label.unique() if not lowest <= one < count]:
        what = f"class {wrong[0]} is asked for, but the classes of the model are 0 to {count - 1}"
        never = "a model that was always told the class has none without; train it with `label_dropping`"
        raise ConfigurationError(what, fix=never if wrong == [-1] else f"a class from 0 to {count - 1}")
    return label


def check_direct(what: str, sampler: str, nfe: int | str, why: str = "") -> None:
    """Raise NotOffered for a sampler other than `direct` with one evaluation, of a method (`what` it is) that has no other."""
    if (sampler, nfe) != ("direct", 1):
        raise NotOffered(
            f"{what} has the sampler 'direct' with nfe 1, not '{sampler}' with {nfe}",
            why=why,
            fix="give its method an entry `samplers: {direct: [1]}`",
        )


class Method(Protocol):
    """A kind of method: the checked options of one, `METHODS.build(kind, **options)`.

    Its class may have `parents`, {role: kind}: what it starts from, which the parameters of a method must then name.
    """

    def objective(self, data: Facts, parents: dict[str, Generator], seed: int) -> Objective:
        """What is trained, its weights drawn from `seed`.

        Args:
            parents: trained methods by their roles. What the objective needs of one later, it keeps as a sub-module.
        """

    def generator(self, averaged: Any) -> Generator:
        """What the trained objective, or its average, can do."""


def load(checkpoint: str | Path, device: torch.device | str = "cpu") -> Generator:
    """The generator of a checkpoint, ready for use: no gradients, evaluation mode.

    Raises:
        CheckpointError: the file is absent, truncated, foreign, or its weights do not fit its own description.
    """
    tensors, metadata = load_tensors(checkpoint)
    try:
        described = msgspec.convert(metadata, _Description)
        with _NoMoreThan(sum(tensor.numel() for tensor in tensors.values()) + described.ancestors * STATISTICS):
            method, objective = _untrained(described)
        _check_fit(objective, tensors)
        objective.load_state_dict(tensors)
        objective.check()
        generator = method.generator(objective.to(device).requires_grad_(False).eval())
    except (ConfigurationError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = error.what if isinstance(error, ConfigurationError) else (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"the weights in {checkpoint} do not fit the network that it describes ({reason})",
            why="it was written by another version, or altered",
            fix="train it again",
        ) from error
    generator.metadata = metadata
    return generator


def check_belongs(named: Mapping[str, Any], checkpoint: str | Path, generator: Generator, dataset: Any) -> None:
    """Refuse a checkpoint for results that would stand under another data set's or method's name.

    Args:
        named: what the results will say of themselves: `dataset` and `method`, either of which may be absent.
        checkpoint: its path. dataset: the prepared data set.
    Raises:
        CheckpointError: it was trained on other data, or by another method.
    """
    metadata = generator.metadata
    for key in ("dataset", "method"):
        if key in named and metadata["spec"][key] != named[key]:
            raise CheckpointError(
                f"{checkpoint} was trained with {key} '{metadata['spec'][key]}', but results of '{named[key]}' are asked for",
                why="they would stand under the wrong name in every table",
                fix=f"give the checkpoint of '{named[key]}', or retrain",
            )
    if metadata["data_sha256"] != dataset.sha256:
        raise CheckpointError(
            f"{checkpoint} was trained on other data than those in {dataset.folder} "
            f"(sha256 {metadata['data_sha256'][:12]}…, now {dataset.sha256[:12]}…)",
            why="it would be compared with data that it never saw",
            fix="train again, or restore the data with `dvc checkout`",
        )


# Numbers that a parent may keep of its data for its own training, as a loss metric does: 1024 x 1024 and a few vectors
STATISTICS = 2**21


class _Spec(Struct):
    """The part of a training spec from which a model is built and told apart."""

    dataset: Name
    method: Name
    kind: str
    options: dict[str, Any]


class _Description(Struct):
    """The part of a checkpoint's metadata that is used."""

    spec: _Spec
    facts: Facts
    data_sha256: str
    parents: dict[str, "_Description"] = {}

    @property
    def ancestors(self) -> int:
        """Its parents, theirs, and so on."""
        return sum(1 + parent.ancestors for parent in self.parents.values())


def _untrained(described: _Description) -> tuple[Method, Any]:
    """(method, objective) of a description. The weights of its parents are not needed: an objective holds what it keeps."""
    method = METHODS.build(described.spec.kind, **described.spec.options)
    parents = {}
    for role, description in described.parents.items():
        kind, objective = _untrained(description)
        parents[role] = kind.generator(objective.requires_grad_(False).eval())
    return method, method.objective(described.facts, parents, 0)


class _NoMoreThan(TorchFunctionMode):
    """Refuses to make more weights than a file holds: a description may ask for more than the memory of the machine.

    Building on torch's device "meta" would need no memory, but imports its compiler (a second) in every job.
    """

    def __init__(self, count: int):
        super().__init__()
        self.left = count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.empty:  # of which every layer makes its weights
            self.left -= math.prod(args[0] if isinstance(args[0], list | tuple) else args)
            if self.left < 0:
                raise ValueError("it has more weights than the file")
        return function(*args, **(kwargs or {}))


def _check_fit(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where a module has other names, shapes or types of weights."""
    described = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    for name in described | found:
        if described.get(name) != found.get(name):
            raise ValueError(f"'{name}' is {found.get(name, 'absent')}, described as {described.get(name, 'absent')}")
