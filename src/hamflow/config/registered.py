"""Whether everything that is registered by name exists, takes its options, and fits: before any job. Imports torch."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Annotated, Any

from hamflow import networks
from hamflow.config.reading import methods_of
from hamflow.config.sections import Method
from hamflow.config.specs import options_of
from hamflow.data import sources
from hamflow.errors import ConfigurationError, nearest
from hamflow.flows.base import FLOWS
from hamflow.methods.base import METHODS
from hamflow.metrics import features, suite
from hamflow.metrics.suite import MEMORISATION
from hamflow.networks.base import NETWORKS
from hamflow.registry import convert, unknown
from hamflow.sampling import budget, solvers
from hamflow.sampling.proxy import ProxySpec
from hamflow.sampling.solvers import TELEPORTED, check_flow
from hamflow.score.estimators import ESTIMATORS
from hamflow.score.likelihood import LikelihoodSpec
from hamflow.score.model import ModelSpec

Config = dict[str, Any]


def check(config: Config) -> None:
    """Raise ConfigurationError for what is named in parameters, whose sections are right, and cannot be."""
    sources = {name: _check_dataset(config, name) for name in config["datasets"]}
    run = {name: sources[name] for name in config["run"]["datasets"]}
    for name, network in config["networks"].items():
        convert(Annotated[dict[str, Any], NETWORKS.entry("kind")], network, f"networks.{name}")
    for name in config["methods"]:
        _check_method(config, name, {dataset: source for dataset, source in run.items() if name in methods_of(config, dataset)})
    _check_budgets(config["sampling"]["settings"], "sampling.settings")
    _check_teleported(config)
    for name, options in config["evaluation"].get("features", {}).items():
        features.check(name, options, f"evaluation.features.{name}")
    for name in config["evaluation"].get("more", []):
        if name not in suite.optional():
            raise ConfigurationError(f"`evaluation.more`: unknown metric '{name}'", fix=nearest(name, suite.optional()))
    _check_discrepancy(config["metrics"]["hsd"], list(run.values()))
    convert(ProxySpec, config["evaluation"].get("proxy", {}), "evaluation.proxy")
    convert(LikelihoodSpec, config["metrics"].get("likelihood", {}), "metrics.likelihood")
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
    told = source.kind == "point" or source.class_names is tuple  # without reading somebody's folders
    if entry["conditional"] and told and not source.class_names():
        raise ConfigurationError(f"`{at}.conditional` is true, but these data have no classes", fix="set it to false")
    if entry["class_law"] == "equal" and not entry["conditional"]:
        what = f"`{at}.class_law` is equal, but the model is not told the class"
        raise ConfigurationError(what, why="it draws the classes as it learnt them", fix=f"set {at}.conditional to true")
    if entry["class_law"] == "equal" and source.kind == "point":
        raise ConfigurationError(f"`{at}.class_law` is equal, but the law of points is known as a whole", fix="leave it out")
    if entry["reference"] == "held_out":
        if source.kind == "point":
            raise ConfigurationError(
                f"`{at}.reference` is held_out, but points are compared with their law", fix="leave it out"
            )
        if MEMORISATION in config["evaluation"].get("more", []):
            raise ConfigurationError(
                f"`{at}.reference` is held_out, but `evaluation.more` asks for memorisation",
                why="copies are looked for among training images, of which the statistics then hold none",
                fix="take one of them out",
            )
    if shape := _shape(source):
        networks.check(config["networks"][entry["network"]], shape, f"networks.{entry['network']}")
    return source


def _shape(source: sources.Source) -> tuple[int, ...] | None:
    """Of one datum as far as a network's options depend on it; None: not known before the data are read."""
    return source.shape or ((2,) if source.kind == "point" else None)


def _check_method(config: Config, name: str, run: Mapping[str, sources.Source]) -> None:
    entry, at = config["methods"][name], f"methods.{name}"
    METHODS.get(entry["kind"], f"{at}.kind")
    kind, options = METHODS.options(entry["kind"]), options_of(entry)
    known = {*kind.__struct_fields__, *Method.__struct_fields__}
    for key in options.keys() - known:
        raise unknown(at, key, known, f"a method of kind '{entry['kind']}'")
    method: Any = METHODS.check(entry["kind"], options, at)
    for role, needed in getattr(kind, "parents", {}).items():
        _check_parent(config, entry, at, role, needed)
    own = {k: v for k, v in entry.get("samplers", {}).items() if k not in getattr(kind, "samplers", ())}
    _check_budgets(own, f"{at}.samplers", 1 if entry.get("guidance", 1) == 1 else 2)
    if hasattr(method, "check_samplers"):
        method.check_samplers(entry.get("samplers", {}))
    if run and "flow" in options:
        for sampler in entry.get("samplers") or config["sampling"]["settings"]:
            if sampler.removeprefix(TELEPORTED) in budget.names():
                check_flow(sampler, FLOWS.get(options["flow"]["name"]))
    for source in run.values() if hasattr(method, "check") else []:
        method.check(source.box)
    if own := entry.get("network"):
        for shape in filter(None, map(_shape, run.values())):
            networks.check(config["networks"][own], shape, f"networks.{own}")
    for dataset in run if hasattr(method, "check_network") else []:
        method.check_network(config["networks"][own or config["datasets"][dataset]["network"]])
    if entry.get("guidance", 1) != 1:
        _check_guidance(config, name, run)


def _check_parent(config: Config, entry: Config, at: str, role: str, kind: str) -> None:
    """Raise ConfigurationError, if a method does not start from one of the kind that its own needs for a role."""
    fix = f"`{at}.parents: {{{role}: METHOD}}`, a method of kind `{kind}`"
    if role not in entry.get("parents", {}):
        what = f"`{at}.parents` names no `{role}`, which a method of kind '{entry['kind']}' starts from"
        raise ConfigurationError(what, fix=fix)
    parent = entry["parents"][role]
    if (found := config["methods"][parent]["kind"]) != kind:
        raise ConfigurationError(f"`{at}.parents.{role}` = '{parent}' is a method of kind '{found}', not '{kind}'", fix=fix)


def _check_guidance(config: Config, name: str, run: Mapping[str, sources.Source]) -> None:
    """Raise ConfigurationError where a method's samples cannot be guided."""
    entry, at = config["methods"][name], f"methods.{name}"
    what = f"`{at}.guidance` = {entry['guidance']:g}, but "
    if not entry.get("label_dropping"):
        raise ConfigurationError(
            f"{what}the model would always be told the class",
            why="guidance compares the velocity of a class with that of all classes, which it would not have learned",
            fix=f"`{at}.label_dropping: 0.1`",
        )
    for dataset in run:
        if not config["datasets"][dataset]["conditional"]:
            raise ConfigurationError(
                f"{what}`datasets.{dataset}.conditional` is false", why="there is no class to guide to", fix="set it to true"
            )
    if run and "samplers" not in entry:
        try:
            _check_budgets(config["sampling"]["settings"], "sampling.settings", 2)
        except ConfigurationError as error:
            raise ConfigurationError(error.what, why=error.why, fix=f"{error.fix}, in `{at}.samplers`") from None


def _check_budgets(settings: Mapping[str, list[int | str]], at: str, each: int = 1) -> None:
    """`each`: evaluations of the network in one of the velocity, as of `steps_for`."""
    for sampler, budgets in settings.items():
        solvers.get(sampler, at)
        if len(set(budgets)) < len(budgets):
            raise ConfigurationError(f"`{at}.{sampler}` = {budgets} names one twice")
        for nfe in budgets:
            budget.steps_for(sampler, nfe, each)


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
