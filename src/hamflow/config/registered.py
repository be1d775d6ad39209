"""Whether everything that is registered by name exists, takes its options, and fits: before any job. Imports torch."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Annotated, Any

from hamflow import networks
from hamflow.config.sections import Method
from hamflow.config.specs import options_of
from hamflow.data import sources
from hamflow.errors import ConfigurationError, nearest
from hamflow.flows.base import FLOWS
from hamflow.methods.base import METHODS
from hamflow.metrics import features, suite
from hamflow.networks.base import NETWORKS
from hamflow.registry import convert, unknown
from hamflow.sampling import budget
from hamflow.sampling.solvers import TELEPORTED, check_flow, get
from hamflow.score.estimators import ESTIMATORS
from hamflow.score.model import ModelSpec

Config = dict[str, Any]


def check(config: Config) -> None:
    """Raise ConfigurationError for what is named in parameters, whose sections are right, and cannot be."""
    sources = {name: _check_dataset(config, name) for name in config["datasets"]}
    run = [sources[name] for name in config["run"]["datasets"]]
    for name, network in config["networks"].items():
        convert(Annotated[dict[str, Any], NETWORKS.entry("kind")], network, f"networks.{name}")
    for name in config["methods"]:
        _check_method(config, name, run if name in config["run"]["methods"] else [])
    _check_budgets(config["sampling"]["settings"], "sampling.settings")
    _check_teleported(config)
    for name, options in config["evaluation"].get("features", {}).items():
        features.check(name, options, f"evaluation.features.{name}")
    for name in config["evaluation"].get("more", []):
        if name not in suite.optional():
            raise ConfigurationError(f"`evaluation.more`: unknown metric '{name}'", fix=nearest(name, suite.optional()))
    _check_discrepancy(config["metrics"]["hsd"], run)
    _check_modules(config, "studies")


def _check_modules(config: Config, section: str) -> None:
    """Of a section whose entries are settings of the module of their name in the package of that name: its struct `Spec`."""
    package = importlib.import_module(f"hamflow.{section}")
    kinds = {}
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if kind := getattr(importlib.import_module(found.name), "Spec", None):
            kinds[found.name.rpartition(".")[2]] = kind
    for name, settings in config[section].items():
        if name not in kinds:
            raise ConfigurationError(f"`{section}.{name}`: there is no such module", fix=nearest(name, kinds))
        convert(kinds[name], settings, f"{section}.{name}")


def _check_dataset(config: Config, name: str) -> sources.Source:
    """The source of a data set, if its features and its network fit."""
    entry, at = config["datasets"][name], f"datasets.{name}"
    source, _ = sources.build_split(entry["source"], entry["options"], f"{at}.")
    fitting = features.names() if source.kind == "image" else [features.POINTS]
    if entry["features"] not in fitting:
        what = f"`{at}.features` = '{entry['features']}' does not fit data of {source.kind}s"
        raise ConfigurationError(what, fix=nearest(entry["features"], fitting))
    if entry["conditional"] and source.kind == "point" and not source.class_names():
        raise ConfigurationError(f"`{at}.conditional` is true, but these data have no classes", fix="set it to false")
    if entry["class_law"] == "equal" and not entry["conditional"]:
        what = f"`{at}.class_law` is equal, but the model is not told the class"
        raise ConfigurationError(what, why="it draws the classes as it learnt them", fix=f"set {at}.conditional to true")
    if entry["class_law"] == "equal" and source.kind == "point":
        raise ConfigurationError(f"`{at}.class_law` is equal, but the law of points is known as a whole", fix="leave it out")
    if shape := _shape(source):
        networks.check(config["networks"][entry["network"]], shape, f"networks.{entry['network']}")
    return source


def _shape(source: sources.Source) -> tuple[int, ...] | None:
    """Of one datum as far as a network's options depend on it; None: not known before the data are read."""
    return source.shape or ((2,) if source.kind == "point" else None)


def _check_method(config: Config, name: str, run: list[sources.Source]) -> None:
    entry, at = config["methods"][name], f"methods.{name}"
    METHODS.get(entry["kind"], f"{at}.kind")
    kind, options = METHODS.options(entry["kind"]), options_of(entry)
    known = {*kind.__struct_fields__, *Method.__struct_fields__}
    for key in options.keys() - known:
        raise unknown(at, key, known, f"a method of kind '{entry['kind']}'")
    method: Any = METHODS.check(entry["kind"], options, at)
    _check_budgets(
        {k: v for k, v in entry.get("samplers", {}).items() if k not in getattr(kind, "samplers", ())}, f"{at}.samplers"
    )
    _check_roles(config, name, getattr(kind, "roles", {}))
    if hasattr(method, "check_samplers"):
        method.check_samplers(entry.get("samplers", {}))
    if run and "flow" in options:
        for sampler in entry.get("samplers") or config["sampling"]["settings"]:
            if sampler.removeprefix(TELEPORTED) in budget.names():
                check_flow(sampler, FLOWS.get(options["flow"]["name"]))
    for source in run if hasattr(method, "check") else []:
        method.check(source.box)


def _check_roles(config: Config, name: str, roles: Mapping[str, str]) -> None:
    """The parents that a kind of method asks for: {role: their kind}."""
    parents = config["methods"][name].get("parents", {})
    for role, kind in roles.items():
        found = config["methods"][parents[role]]["kind"] if role in parents else None
        if found != kind:
            what = f"'{parents[role]}', a method of kind '{found}'" if role in parents else "absent"
            others = [other for other, entry in config["methods"].items() if entry["kind"] == kind]
            raise ConfigurationError(
                f"`methods.{name}.parents.{role}` is {what}",
                why=f"a method of kind '{config['methods'][name]['kind']}' starts from one of kind '{kind}'",
                fix=f"one of {', '.join(others)}",
            )


def _check_budgets(settings: Mapping[str, list[int | str]], at: str) -> None:
    for sampler, budgets in settings.items():
        get(sampler, at)
        if len(set(budgets)) < len(budgets):
            raise ConfigurationError(f"`{at}.{sampler}` = {budgets} names one twice")
        for nfe in budgets:
            budget.steps_for(sampler, nfe)


def _check_teleported(config: Config) -> None:
    every = [config["sampling"]["settings"], *(entry.get("samplers", {}) for entry in config["methods"].values())]
    for sampler in {name for settings in every for name in settings if name.startswith(TELEPORTED)}:
        if "teleport" not in config["sampling"]:
            raise ConfigurationError(
                f"sampler '{sampler}' starts below the horizon, but `sampling.teleport` does not say at which noise level",
                fix="for example `sampling.teleport: 2.0`, data units",
            )


def _check_discrepancy(settings: Config, run: list[sources.Source]) -> None:
    at = "metrics.hsd"
    convert(ModelSpec, settings, at)
    for kind, options in settings.get("options", {}).items():
        estimator = options.get("estimator") or settings.get("estimator") or ("critic" if kind == "image" else "features")
        ESTIMATORS.get(estimator, f"{at}.options.{kind}.estimator")
        known = {"estimator", *ESTIMATORS.options(estimator).__struct_fields__}
        for key in options.keys() - known:
            raise unknown(f"{at}.options.{kind}", key, known, f"estimator '{estimator}'")
        ESTIMATORS.check(estimator, {k: v for k, v in options.items() if k != "estimator"}, f"{at}.options.{kind}")
        for shape in [_shape(source) for source in run if source.kind == kind and "critic" in options]:
            if shape:
                networks.check(options["critic"], shape, f"{at}.options.{kind}.critic")
