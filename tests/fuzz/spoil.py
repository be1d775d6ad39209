"""How many inputs each reader is given, how bytes and trees are spoilt, and what must not change around a reader.

HAMFLOW_FUZZ_EXAMPLES sets the number of inputs of each test: by default few, and the same ones every time; before a release
    HAMFLOW_FUZZ_EXAMPLES=10000 pytest -n 0 tests/fuzz
"""

import os
import resource
import string
import time
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("HAMFLOW_FUZZ_EXAMPLES", "60"))

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 1000,  # a test that failed must fail again
    deadline=None,  # of an example; the machine may be busy
    database=None,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
NAMES = [
    "../x",
    "/etc/passwd",
    "a/b",
    "",
    ".",
    "..",
    "-rf",
    "a\0b",
    "a\nb",
    "~",
    "A",
    "é",
    "\ud800",
    "a" * 300,
    "C:\\x",
    "data",
    "a b",
]

texts = st.one_of(st.sampled_from(NAMES), st.text(string.ascii_lowercase, max_size=6), st.text(max_size=12))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70),
    st.sampled_from([10**9, 2**31, 2**63, -(2**63), 10**30, 10**400]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def spoilt(draw, bases: list[bytes]) -> bytes:
    """One of some files after up to six flips, wrong numbers, cuts, copies or insertions."""
    content = bytearray(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 600))
        match draw(st.integers(0, 7)):
            case 0 if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case 1 if content:
                content[place] = draw(st.integers(0, 255))
            case 2:
                size = draw(st.sampled_from([2, 4, 8]))
                number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size)
                content[place : place + size] = number.to_bytes(size, draw(st.sampled_from(["little", "big"])))
            case 3:
                del content[place:]
            case 4:
                del content[place : place + length]
            case 5:
                content[place:place] = content[place : place + length]
            case 6:
                content[place:place] = draw(st.binary(max_size=64))
            case _:
                content[place : place + length] = bytes(min(length, max(0, len(content) - place)))
    return bytes(content)


@st.composite
def altered(draw, base: dict, replacement=values):
    """A tree of mappings and lists with up to three of its entries changed a little, replaced, renamed, dropped or added."""
    changed = _copy(base)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        node = changed
        while node:
            key = draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
            if not isinstance(node[key], dict | list) or not node[key] or draw(st.integers(0, 3)) == 0:
                _alter(draw, node, key, replacement)
                break
            node = node[key]
    return changed


def _alter(draw, node, key, replacement):
    match draw(st.integers(0, 7)):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[draw(texts)] = node.pop(key)
        case 2 if isinstance(node, dict):
            node[draw(texts)] = _copy(draw(replacement))  # else later changes would change what is drawn from
        case 3:
            node[key] = _copy(draw(replacement))
        case _:
            node[key] = _copy(draw(_like(node[key], replacement)))


def _like(value, replacement):
    """Values of the same kind, most of which are as legal as this one."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.integers(min(value, max(0, value - 3)), value + 3)
        case float():
            return st.floats(value / 4, value * 4) if 0 < value < 1e300 else st.floats(-1, 1)
        case str():
            return st.one_of(st.just(value + "_2"), st.sampled_from(["edm", "digits", "uniform", "velocity", "mlp", "auto"]))
        case list():
            return st.lists(st.sampled_from(value), max_size=3) if value else st.lists(scalars, max_size=2)
    return replacement


def _copy(node):
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def tree(folder: Path) -> dict[str, tuple]:
    """Every path below a folder: its kind, size, time of change and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[str(path.relative_to(folder))] = (
            facts.st_mode,
            facts.st_size,
            facts.st_mtime_ns if path.is_file() else 0,
            path.read_bytes() if path.is_file() else None,
        )
    return found


@contextmanager
def bounded_time(seconds: float = 20.0):
    """One input may cost so much of the processor's time: a hundred times what a sound one does."""
    began = time.process_time()
    try:
        yield
    finally:
        assert time.process_time() - began < seconds


@contextmanager
def bounded_memory(mebibytes: int = 1024):
    """All inputs together may not raise the largest memory of this process by more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024 * mebibytes
