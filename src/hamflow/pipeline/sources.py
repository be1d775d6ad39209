"""The source files behind a job: the modules that it imports, and what these import, within hamflow."""

import ast
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hamflow.errors import DataError
from hamflow.files.memo import Memo

HERE = Path(__file__).resolve().parents[2]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Modules that print, parse or log. They cannot change a result, so they are no inputs of any job.
WITHOUT_EFFECT = (
    "hamflow.cli",
    "hamflow.config",
    "hamflow.errors",
    "hamflow.files.memo",
    "hamflow.progress",
    "hamflow.pipeline.jobs",
    "hamflow.pipeline.made",
    "hamflow.pipeline.paths",
    "hamflow.pipeline.provenance",
    "hamflow.pipeline.sources",
    "hamflow.pipeline.targets",
    "hamflow.pipeline.workflow",
    "hamflow.tracking",
    "hamflow.verbs.arguments",
)

# Read with expressions: `ast` takes a quarter of a second more of every call of Snakemake.
IMPORT = re.compile(r"^\s*(?:from (hamflow[\w.]*) import (\([^)]*\)|.*)|import (hamflow[\w.]+))", flags=re.MULTILINE)
REGISTRY = re.compile(r"Registry\w*(?:\[[^=]*\])?\([^()]*\"(hamflow[\w.]*)\"")  # whose modules are imported on first use
REGISTERED = re.compile(r"^@(?:(\w+)\.)?register\(\"(\w+)\"[,)]", flags=re.MULTILINE)
HOME = re.compile(r"\"(\w+)\": \"(\w+)\"")  # in a package that imports its names on first use: {name: module}
QUOTED = re.compile(r"\"(\w+)\"")


class Module(NamedTuple):
    """One source file: its registrations are (registry, name), its imports names below hamflow, modules or not."""

    path: Path
    registered: frozenset[tuple[str, str]]
    registries: frozenset[str]
    imports: frozenset[tuple[str, str]]
    homes: Mapping[str, str]
    quoted: frozenset[str]


class Sources:
    """The modules of a source tree, each read once.

    Args:
        root: the folder that holds hamflow/; by default the one from which this very module comes.
        memo: keeps what the code of a file says, by the file's bytes, from one process to the next.
    Raises:
        DataError: there is no such folder: a job of no code would never be made again.
    """

    def __init__(self, root: Path = HERE, memo: Memo | None = None):
        self.root, self.memo = root, memo if memo is not None else Memo()
        if not self.paths:
            raise DataError(f"there is no source of hamflow in {root}", fix="install it as the README says")

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The modules' files by their dotted names."""
        found = {
            ".".join(path.relative_to(self.root).with_suffix("").parts): path for path in self.root.glob("hamflow/**/*.py")
        }
        return {name.removesuffix(".__init__"): path for name, path in sorted(found.items())}

    @cache  # noqa: B019  as many as there are modules
    def module(self, name: str) -> Module:
        text = self.paths[name].read_text(encoding="utf-8")
        imports: set[tuple[str, str]] = set()
        for package, names, alone in IMPORT.findall(text):
            imports |= {(package, found) for found in re.findall(r"\w+", names)} if package else {(alone, "")}
        origin = next((package for package, found in imports if found == "register"), name)  # of a plain `@register`
        return Module(
            self.paths[name],
            frozenset((registry or origin, entry) for registry, entry in REGISTERED.findall(text)),
            frozenset(REGISTRY.findall(text)),
            frozenset(imports),
            dict(HOME.findall(text)) if "__getattr__" in text else {},
            frozenset(QUOTED.findall(text)),
        )

    @cache  # noqa: B019  many jobs differ in their seed alone
    def behind(self, *modules: str, used: frozenset[str] = frozenset(), without: tuple[str, ...] = ()) -> list[str]:
        """The files behind modules, sorted.

        A module that enters objects into a registry is left out where the job uses other objects of that registry: another
        flow, another data set. So adding a method repeats no other.

        Args:
            modules: dotted, below hamflow; a package stands for all of its modules.
            used: names that the job's parameters hold. Names that the modules themselves quote count, too.
            without: packages that the job imports and does not use.
        """
        first = [name for module in modules for name in self._below(f"hamflow.{module}")]
        used = used.union(*(self.module(name).quoted for name in first))
        left_out = (*WITHOUT_EFFECT, *(f"hamflow.{package}" for package in without))
        found, queue = set(first), list(first)
        while queue:
            for name in self._imported(queue.pop()) - found:
                if self._needed(name, used) and not any(name == one or name.startswith(f"{one}.") for one in left_out):
                    found.add(name)
                    queue.append(name)
        return sorted(str(self.module(name).path) for name in found)

    @cache  # noqa: B019
    def code(self, *modules: str, used: frozenset[str] = frozenset(), without: tuple[str, ...] = ()) -> dict[str, str]:
        """What the files behind modules say to Python: {path below the root: digest}; see `behind` and `digest_of_code`."""
        files = map(Path, self.behind(*modules, used=used, without=without))
        return {path.relative_to(self.root).as_posix(): self._digest(path) for path in files}

    @cache  # noqa: B019
    def _digest(self, path: Path) -> str:
        text = path.read_bytes()
        return self.memo.get(hashlib.sha256(text).hexdigest(), lambda: digest_of_code(text))

    @cache  # noqa: B019
    def _imported(self, name: str) -> frozenset[str]:
        """The modules that one imports: at its head, in its functions, and by the registries that it makes."""
        module = self.module(name)
        candidates = {one for package in module.registries for one in self._below(package)}
        for package, found in module.imports:
            candidates |= {package, f"{package}.{found}"}
            if package in self.paths and found in (homes := self.module(package).homes):
                candidates.add(f"{package}.{homes[found]}")
        candidates |= {one.rpartition(".")[0] for one in candidates}  # a package is imported before what is in it
        return frozenset(candidates & self.paths.keys() - {"hamflow"})

    def _needed(self, name: str, used: frozenset[str]) -> bool:
        """Whether a module registers nothing, or something that is used, or what nobody names."""
        registered = self.module(name).registered
        if not registered or any(entry in used for _, entry in registered):
            return True
        package = name.rpartition(".")[0]
        return not any(registry in self._named(package, used) for registry, _ in registered)

    @cache  # noqa: B019
    def _named(self, package: str, used: frozenset[str]) -> frozenset[str]:
        """The registries of a package of which the job names an entry."""
        entries = (entry for name in self._below(package) for entry in self.module(name).registered)
        return frozenset(registry for registry, entry in entries if entry in used)

    def _below(self, package: str) -> list[str]:
        return [name for name in self.paths if name == package or name.startswith(f"{package}.")]


@cache
def of_this_package() -> Sources:
    """The sources of the hamflow that runs."""
    return Sources()


def digest_of_code(text: bytes | str) -> str:
    """A digest of a module's syntax tree: comments, formatting and docstrings leave it as it is, and so does Python's version.

    Nothing in hamflow computes with a docstring. Of what is no Python the bytes count: a job will say what is wrong.
    """
    digest = hashlib.sha256()
    try:
        _describe(ast.parse(text), digest.update)
    except (SyntaxError, ValueError):
        digest.update(text.encode() if isinstance(text, str) else text)
    return digest.hexdigest()[:16]


def _describe(node: object, write: Callable[[bytes], None]) -> None:
    """Write a node of a syntax tree, and all below it; fields that are empty are left out, as versions differ in them."""
    if isinstance(node, list):
        write(b"[")
        for one in node:
            _describe(one, write)
        write(b"]")
    elif isinstance(node, ast.AST):
        write(f"({type(node).__name__}".encode())
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = value[1:]
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment", "type_ignores"):
                write(f" {name}=".encode())
                _describe(value, write)
        write(b")")
    else:
        write(repr(node).encode())


def names_in(value: Any) -> Iterator[str]:
    """Every text within nested parameters, keys and values: any of them may be a registered name."""
    if isinstance(value, Mapping):
        yield from value
        for nested in value.values():
            yield from names_in(nested)
    elif isinstance(value, list):
        for nested in value:
            yield from names_in(nested)
    elif isinstance(value, str):
        yield value
