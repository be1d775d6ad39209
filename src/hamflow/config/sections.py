"""The sections of the parameters: their keys, types, ranges and defaults."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from hamflow.registry import Auto, Count, Grid, Name, NotNegative, Options, Positive, some
from hamflow.training.plan import Training

BOUND = "data"  # results/<preset>/metrics/<dataset>/data is the bound's: no method is called so

Samples = Annotated[int, Meta(ge=2, le=1_000_000)]  # the sampling seeds that a run has
Seed = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Budgets = dict[Name, list[Annotated[int, Meta(ge=1, le=1_000_000)] | Auto]]  # {sampler: numbers of network evaluations}
SomeTraining = Annotated[dict[str, Any], some(Training)]


class Run(Options, kw_only=True, frozen=True):
    """What of the catalogues is run."""

    datasets: Annotated[list[Name], Meta(min_length=1)]
    methods: Annotated[list[Name], Meta(min_length=1)]


ClassLaw = Literal["data", "equal"]
Part = Literal["training", "held_out"]


class Dataset(Options, kw_only=True, frozen=True):
    """An entry of `datasets`."""

    label: str  # how tables and figures call it
    source: str  # a module of hamflow.data registers it
    conditional: bool = False  # whether the network is told the class
    class_law: ClassLaw = "data"  # of samples, and of what they are compared with: that of the rows, or equal
    reference: Part = "training"  # of images: the part that samples are compared with
    options: dict[str, Any] = field(default_factory=dict)  # of the source, and `holdout`
    network: Name  # a key of `networks`
    features: str  # a feature network for images, `points` for points
    n_samples: Samples  # generated and compared, a seed
    training: SomeTraining = field(default_factory=dict)  # overrides of `training` for this data set
    methods: Annotated[list[Name], Meta(min_length=1)] | None = None  # of `run.methods`, those that have these data


class Method(Options, forbid_unknown_fields=False, kw_only=True, frozen=True):
    """What every entry of `methods` has; the other keys are options of its kind."""

    label: str
    kind: str = "velocity"  # a module of hamflow.methods registers it
    network: Name | None = None  # a key of `networks`, in place of the data set's
    training: SomeTraining = field(default_factory=dict)  # overrides of `training`, also those of a data set
    grid: Grid = "edm"  # time grid of the samplers
    samplers: Budgets | None = None  # in place of `sampling.settings`
    guidance: NotNegative | None = None  # of the samples of a conditional model; 1, the default: none
    parents: dict[Name, Name] | None = None  # {role: the method whose checkpoint it starts from}


class Sampling(Options, kw_only=True, frozen=True):
    """How samples are drawn."""

    settings: Budgets
    rho: Annotated[float, Meta(ge=1)] = 7.0  # curvature of the edm grid
    sigma_min: Positive = 0.002  # its last noise level before 0
    sigma_max: Positive = 80.0  # its first noise level after the horizon
    batch: Count = 1024  # at a time; does not change which samples are drawn
    teleport: Positive | None = None  # noise level at which the samplers called teleported_... start, data units

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"has sigma_min = {self.sigma_min}, which is not below sigma_max = {self.sigma_max}")


class Evaluation(Options, kw_only=True, frozen=True):
    """How samples are measured."""

    batch: Count = 256  # images at a time in the feature network
    features: dict[str, dict[str, Any]] = field(default_factory=dict)  # {feature network: its options}
    more: list[str] = field(default_factory=list)  # metrics beside the distances, see `hamflow.metrics.suite`
    beyond: list[Name] = field(default_factory=list)  # methods that the others are compared with, see `hamflow.report.beyond`
    proxy: dict[str, Any] | None = None  # of `hamflow.sampling.proxy.ProxySpec`; None: no table of solvers' errors


class Metrics(Options, kw_only=True, frozen=True):
    """Metrics of the model itself."""

    hsd: dict[str, Any]  # of `hamflow.score.model.ModelSpec`
    likelihood: dict[str, Any] | None = None  # of `hamflow.score.likelihood.LikelihoodSpec`; None: not measured
    tournament: bool = False  # whether the models of each data set are compared with each other, at the noise levels of hsd


class Tracking(Options, kw_only=True, frozen=True):
    """Where MLflow keeps the runs."""

    uri: str = "sqlite:///mlflow.db"  # empty: none
    experiment: Annotated[str, Meta(min_length=1)] = "hamflow"


class Parameters(Options, kw_only=True, frozen=True):
    """All parameters, after all overlays."""

    preset: Name
    seeds: Annotated[list[Seed], Meta(min_length=1)]
    run: Run
    datasets: dict[Name, Dataset]
    networks: dict[Name, dict[str, Any]]
    methods: dict[Name, Method]
    training: Training
    sampling: Sampling
    evaluation: Evaluation = Evaluation()
    metrics: Metrics
    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    tracking: Tracking = Tracking()
    note: str | None = None  # a sentence beside the tables: what the figures of this preset can show, and what they cannot
