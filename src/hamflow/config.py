"""The parameters: loading, merging, checking, and the specification of each job.

A job is given exactly what determines its result, as one plain dictionary (its *spec*), so that a change of the
parameters repeats the jobs whose spec changed and no other.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hamflow.errors import ConfigurationError, nearest
from hamflow.files import untrusted

Config = dict[str, Any]

METHOD_KEYS = {"label", "kind", "training", "grid", "samplers", "parents"}  # of an entry of `methods`; the rest: its kind's

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # as in the schema; becomes part of a path
NAMED = ("name", "dataset", "method", "preset")  # the keys of a specification that hold one
WHY_NAMES = "a name becomes part of a path below results/ and checkpoints/, which it must not leave"
FIX_NAMES = "lower-case letters, digits, _ and -, at most 64, and a letter or digit first"
LONGEST_MESSAGE = 400  # characters: a mistake may quote a whole section


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write out what occurs twice: aliases are refused when it is read."""
        return True


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
    config: Config = {}
    for path in paths:
        config = merge(config, _read(path))
    for setting in settings:
        config = merge(config, _parse_setting(setting))
    return check(config)


def dump(config: Mapping[str, Any]) -> str:
    """The YAML of parameters, which `load` reads back as they are."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=200)


def check(config: Mapping[str, Any]) -> Config:
    """Validate a merged configuration against the closed schema and against itself; returns a copy without nulls.

    A null in an overlay takes a key away, for example `decades` where another time law replaces log_uniform.

    Raises:
        ConfigurationError: names the key, the value found, and the nearest legal key or value.
    """
    try:
        untrusted.check(config)
    except ValueError as error:
        raise ConfigurationError(f"what the parameters hold cannot be: it {error}") from error
    checked: Config = _without_nulls(config)
    _validate("", checked)
    _check_references(checked)
    for dataset in checked["run"]["datasets"]:
        for method in checked["run"]["methods"]:
            training_spec(checked, dataset, method)
    _check_settings(checked)
    return checked


def parse_value(text: str) -> Any:
    """A value given by hand, in YAML. Raises ConfigurationError for what is no YAML, or no plain value."""
    try:
        return untrusted.parse_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"the value {reprlib.repr(text)} {error}") from error


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
        if key in spec and not (isinstance(name := spec[key], str) and NAME.fullmatch(name)):
            raise ConfigurationError(f"--spec has the {key} {name!r}", why=WHY_NAMES, fix=FIX_NAMES)
    if verb:
        _validate(verb, spec)
    return spec


def dataset_spec(config: Config, dataset: str) -> Config:
    """What determines a prepared data set: {name, source, options}."""
    entry = _entry(config, "datasets", dataset)
    return {"name": dataset, "source": entry["source"], "options": entry["options"]}


def training_spec(config: Config, dataset: str, method: str) -> Config:
    """What determines a trained model, but for the seed and the data's bytes."""
    entry, recipe = _entry(config, "datasets", dataset), _entry(config, "methods", method)
    training = merge(merge(config["training"], entry["training"]), recipe["training"])
    return {
        "dataset": dataset,
        "conditional": entry["conditional"],
        "method": method,
        "kind": recipe.get("kind", "velocity"),
        "options": {key: value for key, value in recipe.items() if key not in METHOD_KEYS},
        "network": _entry(config, "networks", entry["network"]),
        "training": training,
    }


def sampling_spec(config: Config, dataset: str, method: str) -> Config:
    """What determines the samples drawn from a trained model, but for its weights and the seed."""
    sampling = config["sampling"]
    return {
        "dataset": dataset,
        "method": method,
        "n_samples": _entry(config, "datasets", dataset)["n_samples"],
        "settings": [list(pair) for pair in sampler_settings(config)],
        "grid": _entry(config, "methods", method).get("grid", "edm"),
        "rho": sampling["rho"],
        "sigma_min": sampling["sigma_min"],
        "sigma_max": sampling["sigma_max"],
        "batch": sampling["batch"],
    }


def evaluation_spec(config: Config, dataset: str, method: str | None = None) -> Config:
    """What determines the metrics of a set of samples, and the labels under which they stand in the tables."""
    entry = _entry(config, "datasets", dataset)
    return {
        "preset": config["preset"],
        "dataset": dataset,
        "dataset_label": entry["label"],
        "conditional": entry["conditional"],
        "method": method or "data",
        "label": _entry(config, "methods", method)["label"] if method else "real data (bound)",
        "features": entry["features"],
        "n_samples": entry["n_samples"],
        "batch": config["evaluation"]["batch"],
    }


def hsd_spec(config: Config, dataset: str, method: str) -> Config:
    """What determines the discrepancy of a trained model, but for its weights, and its labels in the tables."""
    about = evaluation_spec(config, dataset, method)
    labels = ("preset", "dataset", "dataset_label", "conditional", "method", "label")
    return {**config["score"]["hsd"], "about": {key: about[key] for key in labels}}


def sampler_settings(config: Config) -> list[tuple[str, int | str]]:
    """(sampler, nfe) pairs in the order of the parameters."""
    return [(name, nfe) for name, budgets in config["sampling"]["settings"].items() for nfe in budgets]


def study_spec(config: Config, study: str) -> Config:
    """The settings of a study that differ from its own defaults."""
    if study not in config["score"]["experiments"]:
        raise ConfigurationError(f"there is no study '{study}'", fix=nearest(study, config["score"]["experiments"]))
    return config["score"]["experiments"][study]


def _entry(config: Config, catalogue: str, name: str) -> Config:
    if name not in config[catalogue]:
        raise ConfigurationError(
            f"'{name}' is not in `{catalogue}`", fix=nearest(name, config[catalogue]) + f" Or add it to `{catalogue}`."
        )
    return config[catalogue][name]


def _read(path: str | Path) -> Config:
    try:
        content = untrusted.parse_yaml(Path(path).read_text(encoding="utf-8"))
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


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(nested) for key, nested in value.items() if nested is not None}
    return [_without_nulls(nested) for nested in value] if isinstance(value, list) else value


def _parse_setting(setting: str) -> Config:
    path, equals, text = setting.partition("=")
    keys = path.split(".", untrusted.DEEPEST)
    if not equals or not path or len(keys) > untrusted.DEEPEST:
        raise ConfigurationError(
            f"{reprlib.repr(setting)} is not of the form key=value", fix="for example training.train_kimg=8"
        )
    value = parse_value(text)
    for key in reversed(keys):
        value = {key: value}
    return value


def _validate(entry: str, value: Any) -> None:
    """Check a value against the closed schema: "" for all parameters, or one of its definitions."""
    validator = _validator(entry)
    errors = list(validator.iter_errors(value)) if validator else []
    if errors:
        from jsonschema.exceptions import best_match

        raise _explain(best_match(errors))


@cache
def _validator(entry: str) -> Any:
    """None on a compute node with the bare core: the submitting side has checked."""
    try:
        from jsonschema import Draft202012Validator, validators
    except ImportError:
        return None

    def is_integer(_checker: Any, value: Any) -> bool:  # JSON Schema lets 1.0 pass, which would be a path `seed1.0`
        return isinstance(value, int) and not isinstance(value, bool)

    strict = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    schema = yaml.safe_load(resources.files("hamflow").joinpath("params.schema.yaml").read_text())
    if entry:
        schema = {"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{entry}"}
    return validators.extend(Draft202012Validator, type_checker=strict)(schema)


def _explain(error: Any) -> ConfigurationError:
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        wrong = next(key for key in error.instance if key not in known)
        key = f"{where}.{wrong}" if where else wrong
        return ConfigurationError(
            f"unknown key `{key}`", why="a misspelt key would silently leave the default", fix=nearest(str(wrong), known)
        )
    message = error.message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE // 2]} … {message[-LONGEST_MESSAGE // 2 :]}"
    if error.validator == "required":
        return ConfigurationError(f"{message} in `{where or 'the parameters'}`", fix="params.yaml shows every key")
    if error.schema.get("title") == "name":
        return ConfigurationError(f"`{where}`: {message}", why=WHY_NAMES, fix=FIX_NAMES)
    return ConfigurationError(f"`{where}`: {message}", fix="params.yaml has a comment on each key's legal values")


def _check_references(config: Config) -> None:
    for name in config["run"]["datasets"]:
        _entry(config, "networks", _entry(config, "datasets", name)["network"])
    for name in config["run"]["methods"]:
        _entry(config, "methods", name)
    sampling = config["sampling"]
    if sampling["sigma_min"] >= sampling["sigma_max"]:
        raise ConfigurationError(
            f"`sampling.sigma_min` = {sampling['sigma_min']} is not below `sampling.sigma_max` = {sampling['sigma_max']}"
        )


def _check_settings(config: Config) -> None:
    from hamflow.sampling.budget import steps_for  # light: does not import torch

    for sampler, nfe in sampler_settings(config):
        steps_for(sampler, nfe)
