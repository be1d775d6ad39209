"""JSON and YAML that anyone may have written: read as plain, finite values of bounded size, or refused.

A parser alone is not enough. YAML aliases make a page of text a terabyte of values, nesting overruns the stack, and dates,
sets, NaN and control characters would fail far from where they were written. Errors are predicates, "is not YAML: ...", so
that the caller puts the file's name before them.
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


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: no YAML, tags, or a value that `check` refuses.
    """
    _bounded(text, MOST_CHARACTERS)
    try:
        size = _expanded_size(text)
        value = yaml.safe_load(text) if size <= MOST_VALUES else None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: a date or a number that cannot be
        raise ValueError(f"is not YAML: {error}") from error
    if size > MOST_VALUES:
        raise _too_large(MOST_VALUES)
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


def _expanded_size(text: str) -> int:
    """Values that a YAML text stands for, found before any is built: aliases multiply, and merge keys copy.

    At most one more than `MOST_VALUES`, which also stands for what is nested too deep, or in itself.

    Raises:
        ValueError: tags; plain values need none.
    """
    sizes: dict[str, int] = {}  # of the anchored nodes that are complete
    opened: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size so far of each collection under way
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "tag", None) not in (None, "!"):
            raise ValueError(f"it has the tag {event.tag}")
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
            if len(opened) > DEEPEST:
                return MOST_VALUES + 1
        elif isinstance(event, yaml.AliasEvent):
            _add(opened, sizes.get(event.anchor, MOST_VALUES + 1))
        elif isinstance(event, yaml.ScalarEvent):
            if event.implicit[0] and len(event.value) > LONGEST_NUMBER and NUMBER_OF_BASE_60.match(event.value):
                raise ValueError(f"it has a number of {len(event.value)} characters")
            sizes |= {event.anchor: 1} if event.anchor else {}
            _add(opened, 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
            sizes |= {anchor: size} if anchor else {}
            _add(opened, size)
    return opened[0][1]


def _add(opened: list[tuple[str | None, int]], size: int) -> None:
    anchor, before = opened.pop()
    opened.append((anchor, min(before + size, MOST_VALUES + 1)))
