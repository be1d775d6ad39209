"""The specification of each job: exactly what determines its result, as one plain dictionary.

A change of the parameters repeats the jobs whose specification changed and no other.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hamflow.config.reading import Config, merge, methods_of, without_nulls
from hamflow.config.sections import BOUND, ClassLaw, Method, Part, Samples
from hamflow.errors import ConfigurationError, nearest
from hamflow.files import untrusted
from hamflow.registry import Count, Grid, Name, NotNegative, Options, Positive, convert
from hamflow.training.plan import Training

EQUALLY, HELD_OUT = ", classes equally often", ", against held-out data"  # after the label of a data set in tables
NAMED = ("name", "dataset", "method", "preset")  # the keys of a specification that hold one


class DatasetSpec(Options, kw_only=True, frozen=True):
    """What determines a prepared data set."""

    name: Name
    source: str
    options: dict[str, Any]


class TrainingSpec(Options, kw_only=True, frozen=True):
    """What determines a trained model, but for the seed and the data's bytes."""

    dataset: Name
    conditional: bool
    method: Name
    kind: str
    options: dict[str, Any]
    network: dict[str, Any]
    training: Training
    parents: dict[Name, Any] | None = None


class SamplingSpec(Options, kw_only=True, frozen=True):
    """What determines the samples drawn from a trained model, but for its weights and the seed."""

    dataset: Name
    method: Name
    n_samples: Annotated[int, Meta(ge=1, le=1_000_000)]
    class_law: ClassLaw = "data"
    settings: list[tuple[str, int | str]]
    grid: Grid
    rho: Annotated[float, Meta(ge=1)]
    sigma_min: Positive
    sigma_max: Positive
    batch: Count
    guidance: NotNegative = 1.0
    teleport: Positive | None = None


class EvaluationSpec(Options, kw_only=True, frozen=True):
    """What determines the metrics of a set of samples, and the labels under which they stand in the tables."""

    preset: Name
    dataset: Name
    dataset_label: str
    conditional: bool
    method: Name
    label: str
    features: str
    n_samples: Samples
    batch: Count
    class_law: ClassLaw = "data"
    reference: Part = "training"
    options: dict[str, Any] = msgspec.field(default_factory=dict)  # of the feature network
    more: list[str] = msgspec.field(default_factory=list)  # metrics beside the distances


SPECS = {"prepare": DatasetSpec, "train": TrainingSpec, "sample": SamplingSpec, "evaluate": EvaluationSpec}


def parse_spec(text: str, verb: str = "") -> Config:
    """A job's specification as the command line has it, of a verb (prepare, train, sample, evaluate) or of any.

    Raises:
        ConfigurationError: no JSON object of plain values, a name that would leave the folder of the results, or what the
            verb cannot use: a key that is missing, a type or value that cannot be.
    """
    try:
        spec = untrusted.parse_json(text)
    except ValueError as error:
        raise ConfigurationError(f"--spec {error}") from error
    if not isinstance(spec, dict):
        raise ConfigurationError("--spec must be a JSON object")
    for key in NAMED:
        if key in spec:
            convert(Name, spec[key], f"--spec: {key}")
    if verb in SPECS:
        convert(SPECS[verb], spec, "--spec")
    return spec


def dataset_spec(config: Config, dataset: str) -> Config:
    """See `DatasetSpec`."""
    entry = entry_of(config, "datasets", dataset)
    return {"name": dataset, "source": entry["source"], "options": entry["options"]}


def training_spec(config: Config, dataset: str, method: str) -> Config:
    """See `TrainingSpec`."""
    entry, recipe = entry_of(config, "datasets", dataset), entry_of(config, "methods", method)
    training = merge(merge(config["training"], entry["training"]), recipe["training"])
    complete = msgspec.to_builtins(convert(Training, training, f"training of {method} on {dataset}"))
    spec = {
        "dataset": dataset,
        "conditional": entry["conditional"],
        "method": method,
        "kind": recipe["kind"],
        "options": options_of(recipe),
        "network": entry_of(config, "networks", recipe.get("network") or entry["network"]),
        "training": without_nulls(complete),
    }
    return spec | ({"parents": recipe["parents"]} if recipe.get("parents") else {})


def options_of(recipe: Config) -> Config:
    """Of an entry of `methods`, what is its kind's."""
    return {key: value for key, value in recipe.items() if key not in Method.__struct_fields__}


def sampling_spec(config: Config, dataset: str, method: str) -> Config:
    """See `SamplingSpec`."""
    guidance = entry_of(config, "methods", method).get("guidance", 1.0)
    settings = [list(pair) for pair in sampler_settings(config, method)]
    return {
        "dataset": dataset,
        "method": method,
        **{key: entry_of(config, "datasets", dataset)[key] for key in ("n_samples", "class_law")},
        "settings": settings,
        "grid": entry_of(config, "methods", method)["grid"],
        **{key: config["sampling"][key] for key in ("rho", "sigma_min", "sigma_max", "batch")},
        **({"guidance": guidance} if guidance != 1 else {}),
        **_start(config, settings),
    }


def _start(config: Config, settings: list[list[Any]]) -> Config:
    """The noise level at which samplers start, where one of them does not start from the horizon."""
    if "teleport" not in config["sampling"]:
        return {}
    from hamflow.sampling.solvers import TELEPORTED  # and numpy, which no command needs that only reads parameters

    teleported = any(sampler.startswith(TELEPORTED) for sampler, _ in settings)
    return {"teleport": config["sampling"]["teleport"]} if teleported else {}


def evaluation_spec(config: Config, dataset: str, method: str | None = None) -> Config:
    """See `EvaluationSpec`."""
    entry, evaluation = entry_of(config, "datasets", dataset), config["evaluation"]
    chosen = {"options": evaluation.get("features", {}).get(entry["features"]), "more": evaluation.get("more")}
    if held_out := entry.get("reference") == "held_out":
        chosen["reference"] = entry["reference"]
    return {
        "preset": config["preset"],
        "dataset": dataset,
        "dataset_label": entry["label"] + EQUALLY * (entry["class_law"] == "equal") + HELD_OUT * held_out,
        "conditional": entry["conditional"],
        "method": method or BOUND,
        "label": entry_of(config, "methods", method)["label"] if method else "real data (bound)",
        "features": entry["features"],
        "n_samples": entry["n_samples"],
        "batch": evaluation["batch"],
        "class_law": entry["class_law"],
        **{key: value for key, value in chosen.items() if value},
    }


def discrepancy_spec(config: Config, dataset: str, method: str) -> Config:
    """What determines the discrepancy of a trained model, but for its weights, and its labels in the tables."""
    about = evaluation_spec(config, dataset, method)
    labels = ("preset", "dataset", "dataset_label", "conditional", "method", "label")
    settings, likelihood = config["metrics"]["hsd"], config["metrics"].get("likelihood")
    asked = {} if likelihood is None else {"likelihood": likelihood}
    return {**settings, **asked, "about": {key: about[key] for key in labels}}


def tournament_spec(config: Config, dataset: str) -> Config:
    """What determines the tournament of a data set's models, but for their weights, and the labels in its table."""
    labels = {method: entry_of(config, "methods", method)["label"] for method in methods_of(config, dataset)}
    title = evaluation_spec(config, dataset)["dataset_label"]
    about = {"preset": config["preset"], "dataset": dataset, "dataset_label": title, "methods": labels}
    return {"hsd": config["metrics"]["hsd"], "about": about}


def proxy_spec(config: Config) -> Config:
    """What determines the errors of solvers on exact velocities: of each data set, its methods of velocity fields."""
    datasets: dict[str, dict[str, Config]] = {}
    for dataset in config["run"]["datasets"]:
        fields = [name for name in methods_of(config, dataset) if config["methods"][name]["kind"] == "velocity"]
        sampling = {name: {"sampling": sampling_spec(config, dataset, name)} for name in fields}
        datasets[dataset] = {name: {"flow": config["methods"][name]["flow"], **sampling[name]} for name in fields}
    return {"proxy": config["evaluation"].get("proxy", {}), "datasets": datasets}


def study_spec(config: Config, study: str) -> Config:
    """The settings of a study that differ from its own defaults."""
    return entry_of(config, "studies", study)


def sampler_settings(config: Config, method: str | None = None) -> list[tuple[str, int | str]]:
    """(sampler, nfe) pairs in the order of the parameters, of a method or of all that have none of their own."""
    own = entry_of(config, "methods", method).get("samplers") if method else None
    return [(name, nfe) for name, budgets in (own or config["sampling"]["settings"]).items() for nfe in budgets]


def entry_of(config: Config, catalogue: str, name: str) -> Config:
    if name not in config[catalogue]:
        raise ConfigurationError(
            f"'{name}' is not in `{catalogue}`", fix=nearest(name, config[catalogue]) + f" Or add it to `{catalogue}`."
        )
    return config[catalogue][name]
