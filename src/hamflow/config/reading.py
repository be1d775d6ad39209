"""Reading parameter files and what is given by hand, merging and checking."""

import graphlib
import itertools
import json
import os
import reprlib
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

import hamflow
from hamflow.config.sections import BOUND, Parameters
from hamflow.errors import ConfigurationError, nearest
from hamflow.files import fingerprint, untrusted
from hamflow.files.memo import MEMO, Memo
from hamflow.registry import convert, typed

Config = dict[str, Any]


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> Config:
    """A new configuration: mappings merged key by key, everything else replaced (as Snakemake's --configfile does)."""
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def load(paths: Iterable[str | Path], settings: Iterable[str] = ()) -> Config:
    """Read parameter files, each overlaying those before it, then `a.b=value` settings; checked.

    Raises:
        ConfigurationError: a file that is absent or no YAML mapping; a key, type or value that cannot be.
    """
    config = read(paths)
    for setting in settings:
        config = merge(config, _parse_setting(setting))
    return check(config)


def read(paths: Iterable[str | Path]) -> Config:
    """Parameter files merged, not yet checked. Raises ConfigurationError for a file that is absent or no YAML mapping."""
    config: Config = {}
    for path in paths:
        config = merge(config, _read(path))
    return config


def resolve(paths: Iterable[str | Path], values: Any) -> Config:
    """The parameters of a workflow, checked; says on the terminal what was given by hand and has no effect somewhere.

    Args:
        paths: the parameter files, defaults first. values: of `--config`, as Snakemake read them.
    Raises:
        ConfigurationError: as `check`; no sampler with a budget.
    """
    given, files = by_hand(values), read(paths)
    config = check(merge(files, given))
    for line in beaten(config, merge(_of_experiment(files), given)):
        print(f"Note: {line}", file=sys.stderr)
    if not any(config["sampling"]["settings"].values()):
        raise ConfigurationError("`sampling.settings` names no sampler with a budget", fix="for example {heun: [9]}")
    return config


def by_hand(values: Any) -> Config:
    """What Snakemake's `--config` gave, where all that is nested is text, with the types of the parameters."""
    try:
        return typed(Parameters, values, str)
    except ValueError as error:
        raise ConfigurationError(f"--config {error}") from error


def dump(config: Mapping[str, Any]) -> str:
    """The YAML of parameters, which `load` reads back as they are."""
    apart = json.loads(json.dumps(config))  # for what occurs twice YAML would write an alias, which is refused when it is read
    return yaml.safe_dump(apart, sort_keys=False, allow_unicode=True, width=200)


def check(config: Mapping[str, Any]) -> Config:
    """Check everything that is named in a merged configuration; returns a copy without nulls and with all defaults of sections.

    A null in an overlay takes a key away, for example `decades` where another time law replaces log_uniform.

    Raises:
        ConfigurationError: names the key, the value found, and the nearest legal key or value.
    """
    try:
        untrusted.check(config)
    except ValueError as error:
        raise ConfigurationError(f"what the parameters hold cannot be: it {error}") from error
    given = without_nulls(config)
    checked = without_nulls(msgspec.to_builtins(convert(Parameters, given, "")))
    for name, entry in given["methods"].items():
        checked["methods"][name] = {**entry, **checked["methods"][name]}
    _check_references(checked)
    _check_registered(checked)
    return checked


def methods_of(config: Config, dataset: str | None = None) -> list[str]:
    """The methods that are trained on a data set, or on any of `run.datasets`, in the order of `run.methods`."""
    every: list[str] = config["run"]["methods"]
    allowed = [config["datasets"][name].get("methods", every) for name in ([dataset] if dataset else config["run"]["datasets"])]
    return [method for method in every if any(method in names for names in allowed)]


def beaten(config: Config, overrides: Mapping[str, Any]) -> list[str]:
    """Sentences on what of some overrides of `training` and `sampling.settings` does not apply, and where.

    Args:
        config: checked, with the overrides. overrides: what was given by hand.
    """
    told = []
    for name in config["run"]["datasets"]:
        left = [method for method in overrides.get("run", {}).get("methods", []) if method not in methods_of(config, name)]
        if left:
            told.append(f"`run.methods` does not reach {name} with {', '.join(left)}: see `datasets.{name}.methods`")
    for catalogue, names in (("datasets", config["run"]["datasets"]), ("methods", methods_of(config))):
        for name in names:
            entry, given = config[catalogue][name], overrides.get(catalogue, {}).get(name, {})
            for key in overrides.get("training", {}):
                if key in entry["training"] and key not in given.get("training", {}):
                    own = f"`{catalogue}.{name}.training.{key}` = {entry['training'][key]}"
                    told.append(f"`training.{key}` does not reach {name}, which has {own}")
            if "settings" in overrides.get("sampling", {}) and "samplers" in entry and "samplers" not in given:
                told.append(f"`sampling.settings` does not reach {name}, which has `{catalogue}.{name}.samplers`")
    return told


def _read(path: str | Path) -> Config:
    try:
        content = _typed_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no parameter file {path}", fix="the default is params.yaml") from error
    except IsADirectoryError as error:
        raise ConfigurationError(f"the parameter file {path} is a folder", fix="the default is params.yaml") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path} {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} is not a mapping of keys to values")
    return content


def _of_experiment(config: Config) -> Config:
    """What `dvc exp run --set-param` changed in params.yaml: DVC tells its commands the commit from which it began."""
    if not (revision := os.environ.get("DVC_EXP_BASELINE_REV")):
        return {}
    shown = subprocess.run(["git", "show", f"{revision}:params.yaml"], capture_output=True, text=True, encoding="utf-8")
    try:
        return _difference(_typed_yaml(shown.stdout), config) if shown.returncode == 0 else {}
    except ValueError:
        return {}


def _difference(old: Config, new: Config) -> Config:
    """The overlay that makes the new configuration of the old one, but for keys that went."""
    changed = {key: value for key, value in new.items() if key not in old or old[key] != value}
    both = {key for key in changed if isinstance(changed[key], Mapping) and isinstance(old.get(key), Mapping)}
    return {key: _difference(old[key], value) if key in both else value for key, value in changed.items()}


def _typed_yaml(text: str) -> Any:
    content = untrusted.parse_yaml(text, mark=True)
    return typed(Parameters, content, untrusted.Unquoted) if isinstance(content, dict) else content


def without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_nulls(nested) for key, nested in value.items() if nested is not None}
    return [without_nulls(nested) for nested in value] if isinstance(value, list | tuple) else value


def _parse_setting(setting: str) -> Config:
    path, equals, text = setting.partition("=")
    keys = path.split(".", untrusted.DEEPEST)
    if not equals or not path or len(keys) > untrusted.DEEPEST:
        raise ConfigurationError(
            f"{reprlib.repr(setting)} is not of the form key=value", fix="for example training.train_kimg=8"
        )
    value: Any = text
    for key in reversed(keys):
        value = {key: value}
    try:
        return typed(Parameters, value, str)
    except ValueError as error:
        raise ConfigurationError(f"{path}: the value {error}") from error


def _check_references(config: Config) -> None:
    """Raise ConfigurationError for a name that is not in its catalogue, or stands twice."""
    own = {f"datasets.{name}.methods": entry["methods"] for name, entry in config["datasets"].items() if "methods" in entry}
    run = {f"run.{key}": names for key, names in config["run"].items()}
    for key, names in {"seeds": config["seeds"], **run, **own}.items():
        if len(set(names)) < len(names):
            raise ConfigurationError(f"`{key}` = {reprlib.repr(names)} names one twice")

    def require(catalogue: str, name: str) -> None:
        if name not in config[catalogue]:
            fix = nearest(name, config[catalogue]) + f" Or add it to `{catalogue}`."
            raise ConfigurationError(f"'{name}' is not in `{catalogue}`", fix=fix)

    for name in config["run"]["datasets"]:
        require("datasets", name)
    for name in itertools.chain(config["run"]["methods"], *own.values()):
        require("methods", name)
    for entry in (*config["datasets"].values(), *config["methods"].values()):
        if "network" in entry:
            require("networks", entry["network"])
    counts = {name: len(methods_of(config, name)) for name in config["run"]["datasets"]}
    for name in (name for name, count in counts.items() if not count):
        fix = f"take {name} out of `run.datasets`, or name one of {', '.join(own[f'datasets.{name}.methods'])}"
        raise ConfigurationError(f"`datasets.{name}.methods` has none of `run.methods`", fix=fix)
    if config["metrics"].get("tournament") and (min(counts.values()) < 2 or not config["metrics"]["hsd"]["sigmas"]):
        raise ConfigurationError(
            "`metrics.tournament` is true, but a data set has one method alone, or `metrics.hsd.sigmas` no noise level",
            why="each model is judged by the others",
            fix="name further methods and a noise level, or set metrics.tournament to false",
        )
    _check_beyond(config)
    parents = {name: list(entry.get("parents", {}).values()) for name, entry in config["methods"].items()}
    for parent in itertools.chain(*parents.values()):
        require("methods", parent)
    try:
        graphlib.TopologicalSorter(parents).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigurationError(f"`methods.*.parents` go in a circle: {circle}", fix="take one of them out") from None
    if BOUND in config["methods"]:
        raise ConfigurationError(f"no method may be called `{BOUND}`: that is the folder of the bound")


def _check_beyond(config: Config) -> None:
    """Raise ConfigurationError for verdicts on methods that do not exist, or without paired resamples.

    One that is not run now, as in `--config run.methods=[edm]`, has no verdicts.
    """
    known = config["evaluation"].get("beyond", [])
    for name in known:
        if name not in config["methods"]:
            raise ConfigurationError(f"`evaluation.beyond`: there is no method '{name}'", fix=nearest(name, config["methods"]))
    if known and "paired" not in config["evaluation"].get("more", []):
        raise ConfigurationError(
            "`evaluation.beyond` asks for verdicts, but `evaluation.more` for no `paired`",
            why="a verdict is a difference of two methods with its interval",
            fix="set `evaluation.more` to [paired]",
        )


def _check_registered(config: Config) -> None:
    """Raise ConfigurationError for an option, or an object that is registered by name, that cannot be.

    They are registered by modules that import torch, which takes two seconds: parameters that passed once pass again without
    it, unless a source of hamflow changed.
    """
    loaded = "torch" in sys.modules
    sources = [] if loaded else [(str(path), path.stat()) for path in sorted(Path(hamflow.__file__).parent.rglob("*.py"))]
    key = fingerprint([config, [[path, facts.st_size, facts.st_mtime_ns] for path, facts in sources]])
    memo = Memo(None if loaded else MEMO)
    memo.get(f"checked {key}", lambda: _checked(config))
    memo.save()


def _checked(config: Config) -> str:
    from hamflow.config import registered

    registered.check(config)
    return "passed"
