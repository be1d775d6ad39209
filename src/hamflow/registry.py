"""Objects found by name: a new one is one file with one decorator."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hamflow.errors import ConfigurationError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """The named classes or functions of one package; its modules are imported on first use.

    Args:
        kind: what an entry is, in a user's words ("flow").
        package: the package whose modules register entries.
    """

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._entries: dict[str, T] = {}
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

    def get(self, name: str) -> T:
        """The entry of that name. Raises ConfigurationError, naming the nearest."""
        entries = self._all()
        if name not in entries:
            raise ConfigurationError(f"unknown {self.kind} '{name}'", fix=nearest(name, entries))
        return entries[name]

    def build(self, name: str, /, *args: Any, **options: Any) -> Any:
        """Call the entry; options that it does not take are a ConfigurationError that names the nearest."""
        entry = self.get(name)
        known = inspect.signature(entry).parameters
        for option in options:
            if option not in known:
                raise ConfigurationError(f"{self.kind} '{name}' has no option '{option}'", fix=nearest(option, known))
        return entry(*args, **options)

    def _all(self) -> dict[str, T]:
        if not self._complete:
            self._complete = True
            for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                importlib.import_module(f"{self.package}.{module.name}")
        return self._entries
