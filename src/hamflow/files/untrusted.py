"""JSON and YAML that anyone may have written: read as plain, finite values of bounded size, or refused.

A parser alone is not enough. YAML aliases make a page of text a terabyte of values, and are refused; nesting overruns the
stack; dates, sets, NaN and control characters would fail far from where they were written. Errors are predicates, "is not
YAML: ...", so that the caller puts the file's name before them.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import yaml

MOST_CHARACTERS = 2**20
MOST_VALUES = 20_000
DEEPEST = 32
LARGEST_INTEGER = 2**63 - 1
LONGEST_NUMBER = 100  # characters
NUMBER_OF_BASE_60 = re.compile(r"[-+]?\d[\d_]*:")  # YAML 1.1 has it, 1:30 is 90: quadratic in its length, unless it overflows


class Unquoted(str):
    """A YAML scalar without quotes, of which the reader has not yet decided whether it is a text or a number."""


def parse_yaml(text: str, mark: bool = False) -> Any:
    """The value of a YAML text.

    Args:
        mark: leave what has no quotes as `Unquoted`.
    Raises:
        ValueError: no YAML, tags, aliases, or what `check` refuses.
    """
    _bounded(text, MOST_CHARACTERS)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _value(loader, node, mark)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: a date or a number that cannot be
        raise ValueError(f"is not YAML: {error}") from error
    check(value)
    return value


def parse_json(text: str, most_characters: int = MOST_CHARACTERS, most_values: int = MOST_VALUES) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: no JSON, or a value that `check` refuses.
    """
    _bounded(text, most_characters)
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_large(most_values) from None
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    check(value, most_values)
    return value


def check(value: Any, most_values: int = MOST_VALUES) -> None:
    """Pass values that JSON can hold and a job can use: mappings with text keys, lists, printable text, finite numbers.

    Raises:
        ValueError: something else, more values (a shared object counts wherever it occurs) or deeper nesting.
    """
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    seen = 0
    while stack:
        where, node, depth = stack.pop()
        seen += 1
        if seen > most_values or depth > DEEPEST:
            raise _too_large(most_values)
        if isinstance(node, Mapping):
            for key, nested in node.items():
                if not isinstance(key, str):
                    raise ValueError(f"has the key {reprlib.repr(key)} at `{where}`; keys are texts")
                _check_scalar(where, key)
                stack.append((f"{where}.{key}" if where else key, nested, depth + 1))
        elif isinstance(node, list):
            stack += [(f"{where}[{index}]", nested, depth + 1) for index, nested in enumerate(node)]
        else:
            _check_scalar(where, node)


def _check_scalar(where: str, value: Any) -> None:
    if isinstance(value, str):
        if not value.isprintable():
            raise ValueError(f"has an unprintable character at `{where}`: {reprlib.repr(value)}")
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise ValueError(f"has an integer of more than 64 bits at `{where}`")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"has {value} at `{where}`; numbers are finite")
    elif value is not None:
        raise ValueError(f"has a {type(value).__name__} at `{where}`, not a text, number, list or mapping")


def _bounded(text: str, most: int) -> None:
    if len(text) > most:
        raise ValueError(f"has {len(text)} characters, more than {most}")


def _too_large(most_values: int) -> ValueError:
    return ValueError(f"holds more than {most_values} values, or is nested deeper than {DEEPEST}")


class _Loader(yaml.SafeLoader):
    """Refuses aliases, tags and deep nesting before anything is built."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has the alias *{event.anchor}; write out what it stands for")
        if event.tag not in (None, "!"):
            raise ValueError(f"it has the tag {event.tag}")
        self.depth += 1
        if self.depth > DEEPEST + 1:
            raise _too_large(MOST_VALUES)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(loader: _Loader, node: Any, mark: bool) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, mark) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {_key(loader, key): _value(loader, value, mark) for key, value in node.value}
    if node.style is None and mark:
        return Unquoted(node.value)
    if node.style is None and len(node.value) > LONGEST_NUMBER and NUMBER_OF_BASE_60.match(node.value):
        raise ValueError(f"it has a number of {len(node.value)} characters")
    return loader.construct_object(node)


def _key(loader: _Loader, node: Any) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError("it has a key that is no text")
    return _value(loader, node, False)
