"""Named things that plug in: steps, searches, tasks, runtimes.

A folder of the package registers its own members by being imported; other packages add theirs by
the entry-point group of the kind ("lilliput.steps", ...). Registered means tested: the conformance
suite of `lilliput.testing` runs over every name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from lilliput.errors import LilliputError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → things of one kind. The package's own folder is imported at the first look-up."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._things: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        def add(thing: T) -> T:
            if name in self._things and self._things[name] is not thing:
                raise LilliputError(f"two {self.kind}s are called {name!r}")
            self._things[name] = thing
            return thing

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        home = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(home.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.package):
            self._things.setdefault(point.name, point.load())

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._things:
            raise LilliputError(f"no {self.kind} {name!r}", hint=nearest(name, self._things))
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._things))

    def names(self) -> tuple[str, ...]:
        return tuple(self)
