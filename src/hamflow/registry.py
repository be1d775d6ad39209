"""Objects found by name: a new one is one file with one decorator.

The options of an object are one struct, from which come their defaults, types and ranges, and the error about a mistake.
"""

import contextlib
import copy
import importlib
import inspect
import itertools
import pkgutil
import types
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from reprlib import Repr
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from hamflow.errors import ConfigurationError, nearest
from hamflow.files import untrusted

T = TypeVar("T", bound=Callable[..., Any])

# types of options
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z")]  # becomes part of a path
Auto = Literal["auto"]  # what fits the data
Grid = Annotated[  # of times, see `hamflow.sampling.grids.time_grid`
    Literal["edm", "uniform", "power"] | Annotated[tuple[float, ...], Meta(min_length=2, max_length=64)],
    Meta(extra={"check": lambda value, where: check_grid(value, where)}),
]

WHY_NAMES = "a name becomes part of a path below results/ and checkpoints/, which it must not leave"
FIX_NAMES = "lower-case letters, digits, _ and -, at most 64, and a letter or digit first"

_short = Repr()
_short.maxstring = _short.maxother = 80


def some(kind: type[Struct]) -> Meta:
    """For a mapping of some of a struct's keys, those that differ: `Annotated[dict[str, Any], some(Kind)]`."""
    return Meta(extra={"check": lambda value, where: convert(kind, value, where), "kind": kind})


class Options(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A closed set of options with their types, ranges and defaults."""


class Registry(Generic[T]):
    """The named classes or functions of one package; its modules are imported on first use.

    Args:
        kind: what an entry is, in a user's words ("flow").
        package: the package whose modules register entries.
        given: the arguments that are the caller's, no options.
    """

    def __init__(self, kind: str, package: str, given: tuple[str, ...] = ()):
        self.kind, self.package, self.given = kind, package, given
        self._entries: dict[str, T] = {}
        self._options: dict[Any, type[Struct]] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter a class or function under `name`."""

        def enter(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return enter

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._all())

    def get(self, name: str, where: str = "") -> T:
        """The entry of that name. Raises ConfigurationError, naming the nearest."""
        entries = self._all()
        if not isinstance(name, str) or name not in entries:
            at = f"`{where}`: " if where else ""
            raise ConfigurationError(f"{at}unknown {self.kind} {_short.repr(name)}", fix=nearest(str(name), entries))
        return entries[name]

    def options(self, name: str) -> type[Struct]:
        """The struct of an entry's options: the entry itself, or what its annotated signature says."""
        entry: Any = self.get(name)
        if isinstance(entry, type) and issubclass(entry, Struct):
            return entry
        if entry not in self._options:
            self._options[entry] = _struct_of(name, entry, self.given)
        return self._options[entry]

    def check(self, name: str, options: Mapping[str, Any], where: str = "") -> Struct:
        """The options of an entry, without building it.

        Args:
            where: the key of the parameters at which they stand.
        Raises:
            ConfigurationError: an unknown name or option, naming the nearest; a type or value that cannot be.
        """
        self.get(name, where)
        return convert(self.options(name), options, where, f"{self.kind} '{name}'")

    def entry(self, key: str) -> Meta:
        """For a parameter {key: name, option: value, ...}: `Annotated[dict[str, Any], FLOWS.entry("name")]`."""
        return Meta(extra={"check": lambda value, where: self._check_entry(key, value, where)})

    def name(self) -> Meta:
        """For a parameter that is the name of an entry: `Annotated[str, LAWS.name()]`."""
        return Meta(extra={"check": self.get})

    def build(self, name: str, /, *args: Any, **options: Any) -> Any:
        """Call the entry (for a struct: make it) with checked options."""
        entry = self.get(name)
        checked = self.check(name, {key: value for key, value in options.items() if key not in self.given}, name)
        return checked if type(checked) is entry else entry(*args, **options)

    def _check_entry(self, key: str, value: Mapping[str, Any], where: str) -> None:
        if key not in value:
            raise ConfigurationError(
                f"`{where}` lacks `{key}`, the name of a {self.kind}", fix=f"Known: {', '.join(self.names())}."
            )
        self.get(value[key], f"{where}.{key}")
        self.check(value[key], {name: option for name, option in value.items() if name != key}, where)

    def _all(self) -> dict[str, T]:
        if not self._complete:
            self._complete = True
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        return self._entries


def convert(kind: Any, value: Any, where: str, of: str = "") -> Any:
    """A value as a type says, structs and mappings key by key.

    Args:
        kind: a struct, a mapping or what `msgspec.convert` takes.
        where: the key of the parameters at which the value stands. of: the owner of the keys, for the error.
    Raises:
        ConfigurationError: names the key, the value found and what is legal.
    """
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(inner) is dict and isinstance(value, Mapping) and get_args(inner)[1] is not Any:
        keys, values = get_args(inner)
        return {
            convert(keys, key, f"{where}: {_short.repr(key)}"): convert(values, v, _at(where, key)) for key, v in value.items()
        }
    if isinstance(inner, type) and issubclass(inner, Struct):
        return _convert_struct(inner, value, where, of)
    try:
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _mistake(kind, value, where, str(error)) from None
    for meta in get_args(kind)[1:] if inner is not kind else ():
        if value is not None and meta.extra and "check" in meta.extra:
            meta.extra["check"](value, where)
    return found


def check_grid(grid: Any, where: str = "grid") -> None:
    """Raise ConfigurationError for times that do not fall all the way from the horizon, 1, to 0."""
    if isinstance(grid, str) or (grid[0] == 1 and grid[-1] == 0 and all(a > b for a, b in itertools.pairwise(grid))):
        return
    raise ConfigurationError(
        f"`{where}` = {_short.repr(grid)}: these times do not fall from 1, the horizon, to 0",
        why="a solver that goes back and forth, or stops early, ends elsewhere than at the data",
        fix="falling numbers such as [1, 0.6, 0.2, 0]",
    )


def typed(kind: Any, value: Any, text: type[str]) -> Any:
    """What was written without quotes, with the types of YAML; where `kind` is a text, as it was written.

    Args:
        kind: a struct or another type, of which the value may be a part only.
        text: the class of what was written without quotes.
    Raises:
        ValueError: what is no YAML.
    """
    if isinstance(value, Mapping):
        return {key: typed(_part(kind, key), nested, text) for key, nested in value.items()}
    if isinstance(value, list):
        return [typed(_part(kind, 0), nested, text) for nested in value]
    if not isinstance(value, text) or (value == "" and text is str):
        return value
    wanted = set(_leaves(kind))
    if str in wanted:
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return None if value in ("null", "~") else value[1:-1] if quoted else str(value)
    try:
        found = untrusted.parse_yaml(value, mark=True)
        found = untrusted.parse_yaml(value) if isinstance(found, str) else typed(kind, found, untrusted.Unquoted)
    except ValueError:
        if kind is Any:
            return str(value)
        raise
    if isinstance(found, str) and float in wanted:  # 1e3, which YAML 1.1 calls a text
        with contextlib.suppress(ValueError):
            return float(found)
    return found


def _part(kind: Any, key: Any) -> Any:
    """The type of what stands in a value of a type at a key."""
    if get_origin(kind) is Annotated:
        extra = [meta.extra["kind"] for meta in get_args(kind)[1:] if meta.extra and "kind" in meta.extra]
        return _part(extra[0] if extra else get_args(kind)[0], key)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return next((field.type for field in msgspec.structs.fields(kind) if field.name == key), Any)
    if get_origin(kind) in (Union, types.UnionType):
        return next((part for option in get_args(kind) if (part := _part(option, key)) is not Any), Any)
    return get_args(kind)[-1 if get_origin(kind) is dict else 0] if get_origin(kind) in (dict, list, tuple) else Any


def _leaves(kind: Any) -> Any:
    """The types that a value of a type may have."""
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        for part in get_args(kind)[: 1 if get_origin(kind) is Annotated else None]:
            yield from _leaves(part)
    else:
        yield kind


def _convert_struct(kind: type[Struct], value: Any, where: str, of: str) -> Struct:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"`{where}` = {_short.repr(value)}, but a mapping of keys to values is expected")
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    owner = f" of {of}" if of else ""
    for key in value:
        if key not in fields and kind.__struct_config__.forbid_unknown_fields:
            raise unknown(where, key, fields, of)
    if missing := [name for name, field in fields.items() if field.required and name not in value]:
        raise ConfigurationError(f"`{_at(where, missing[0])}`{owner} is missing", fix="params.yaml shows every key")
    found = {name: convert(fields[name].type, v, _at(where, name)) for name, v in value.items() if name in fields}
    try:
        return kind(**found)
    except ValueError as error:
        raise ConfigurationError(f"`{where}` {error}") from error


def unknown(where: str, key: Any, known: Iterable[str], of: str = "") -> ConfigurationError:
    """The error about a key that does not exist."""
    return ConfigurationError(
        f"unknown key `{_at(where, key)}`{f' of {of}' if of else ''}",
        why="a misspelt key would silently leave the default",
        fix=nearest(str(key), known) if known else "there are no options",
    )


def _at(where: str, key: Any) -> str:
    key = _short.repr_str(str(key), 1)[1:-1]
    return f"{where}.{key}" if where else key


def _mistake(kind: Any, value: Any, where: str, message: str) -> ConfigurationError:
    what = f"`{where}` = {_short.repr(value)}"
    if kind is Name:
        return ConfigurationError(f"{what} is no name", why=WHY_NAMES, fix=FIX_NAMES)
    legal = list(_literals(kind))
    if message.startswith("Invalid enum value") and isinstance(value, str):
        return ConfigurationError(f"{what} is not one of its legal values", fix=nearest(value, legal))
    also = f" (or {', '.join(map(repr, legal))})" if legal else ""
    reason = message.replace("`", "").replace(" - at $", " at ")
    return ConfigurationError(f"{what}: {reason}{also}", fix="params.yaml has a comment on each key's legal values")


def _literals(kind: Any) -> Any:
    """The texts that a type allows besides other values."""
    if get_origin(kind) is Literal:
        yield from (value for value in get_args(kind) if isinstance(value, str))
    elif get_origin(kind) in (Annotated, Union, types.UnionType, list, tuple):
        for part in get_args(kind):
            yield from _literals(part)


def _struct_of(name: str, entry: Any, given: tuple[str, ...]) -> type[Struct]:
    """The struct of the annotated arguments of a function or class, but for those that are given."""
    hints = get_type_hints(entry.__init__ if isinstance(entry, type) else entry, include_extras=True)  # type: ignore[misc]  # a class, no instance
    fields: list[Any] = []
    for parameter in inspect.signature(entry).parameters.values():
        if parameter.name in given:
            continue
        default = parameter.default
        if default is parameter.empty:
            default = msgspec.NODEFAULT
        elif isinstance(default, dict | list | set):
            default = msgspec.field(default_factory=partial(copy.copy, default))
        fields.append((parameter.name, hints.get(parameter.name, Any), default))
    return msgspec.defstruct(name, fields, bases=(Options,), kw_only=True)
