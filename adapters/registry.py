"""One small generic class for everything that comes in by name: strategies, objectives, tasks."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from adapters.errors import AdapterError

T = TypeVar("T", bound=type[Any])


class RegistryError(AdapterError):
    """A name is unknown, taken, or its plug-in does not load."""


class Registry(Generic[T]):
    """Names for classes, open to code from outside the project.

    Args:
        kind: What one entry is called in messages, for example ``"strategy"``.
        group: Entry-point group through which installed packages offer entries, for example
            ``"potstill.strategies"``. A package is loaded only when one of its names is asked for
            or everything is listed.
        base: Class that every entry has to derive from.
    """

    def __init__(self, kind: str, group: str, base: type | None = None) -> None:
        self.kind = kind
        self.group = group
        self.base = base
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class to make it known under ``name``; the class comes back unchanged.

        Raises:
            RegistryError: ``name`` is taken by another class (the message names both places), or
                what is decorated is not a class of the right kind.
        """

        def decorate(cls: T) -> T:
            if self.base is not None and not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise RegistryError(
                    f"The {self.kind} {name!r} ({getattr(cls, '__qualname__', cls)}) has to be a "
                    f"class that derives from {self.base.__module__}.{self.base.__qualname__}."
                )
            known = self._entries.get(name)
            if known is not None and _place(known) != _place(cls):
                raise RegistryError(
                    f"The {self.kind} name {name!r} is registered twice: by {_place(known)} and "
                    f"by {_place(cls)}. Rename one of them."
                )
            self._entries[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> T:
        """Return the class registered as ``name``, loading an installed plug-in if it offers it.

        Raises:
            RegistryError: No such name (the message lists the known ones and the nearest), or the
                plug-in that offers it fails to import.
        """
        if name not in self._entries:
            for point in entry_points(group=self.group, name=name):
                self._load(point)
        if name not in self._entries:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise RegistryError(
                f"Unknown {self.kind} {name!r}.{hint} Known: {', '.join(known) or 'none'}."
            )
        return self._entries[name]

    def name_of(self, cls: type) -> str:
        """Return the name under which ``cls`` is registered.

        Raises:
            RegistryError: It is not registered.
        """
        for name, known in self._entries.items():
            if known is cls:
                return name
        raise RegistryError(
            f"The {self.kind} {cls.__qualname__} is not registered; decorate the class with "
            f"@register({cls.__name__.lower()!r})."
        )

    def names(self) -> list[str]:
        """Return every known name, sorted; plug-ins that are installed but not loaded count."""
        return sorted({*self._entries, *(point.name for point in entry_points(group=self.group))})

    def __contains__(self, name: object) -> bool:
        """Tell whether ``name`` can be asked for."""
        return name in self.names()

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Yield ``(name, class)`` sorted by name; this loads every installed plug-in."""
        for name in self.names():
            yield name, self.get(name)

    def _load(self, point: Any) -> None:
        try:
            cls = point.load()
        except Exception as error:
            package = getattr(point.dist, "name", "a plug-in")
            raise RegistryError(
                f"The {self.kind} {point.name!r} comes from {package} ({point.value}), which does "
                f"not load: {type(error).__name__}: {error}. Repair or uninstall that package."
            ) from error
        if point.name not in self._entries:
            self.register(point.name)(cls)


def _place(cls: type) -> str:
    try:
        return f"{inspect.getsourcefile(cls)} ({cls.__qualname__})"
    except TypeError:
        return f"{cls.__module__}.{cls.__qualname__}"
