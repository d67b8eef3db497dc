"""One small generic class for everything that comes in by name: strategies, objectives, tasks."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from adapters.errors import AdapterError
from adapters.validation_messages import explain

T = TypeVar("T", bound=type[Any])


class RegistryError(AdapterError):
    """A name is unknown, taken, or its plug-in does not load or does not work."""


class Registry(Generic[T]):
    """Names for classes, open to code from outside the project.

    Args:
        kind: What one entry is called in messages, for example ``"strategy"``.
        group: Entry-point group through which installed packages offer entries, for example
            ``"potstill.strategies"``. A package is loaded only when one of its names is asked for
            or everything is listed. Empty for what only the project itself can offer.
        base: Class that every entry has to derive from.
    """

    def __init__(self, kind: str, group: str, base: type | None = None) -> None:
        self.kind = kind
        self.group = group
        self.base = base
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class to make it known under ``name``; the class comes back unchanged.

        Raises:
            RegistryError: ``name`` is no name, or taken by another class (the message names both
                places), or what is decorated is not a class of the right kind, or has a field
                called ``name``.
        """
        if not isinstance(name, str) or not name.strip():
            told = getattr(name, "__qualname__", repr(name))
            raise RegistryError(
                f"{told} needs a name to be registered as a {self.kind}: write "
                f'@register("a_name") with the name in brackets.'
            )

        def decorate(cls: T) -> T:
            if self.base is not None and not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise RegistryError(
                    f"The {self.kind} {name!r} ({getattr(cls, '__qualname__', cls)}) has to be a "
                    f"class that derives from {self.base.__module__}.{self.base.__qualname__}."
                )
            if "name" in getattr(cls, "model_fields", {}):
                raise RegistryError(
                    f"The {self.kind} {name!r} ({cls.__qualname__}) has a field 'name', by which "
                    f"recipes choose the {self.kind} itself. Call the field otherwise."
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

        A name that is registered already is never looked up among the installed plug-ins: see
        `rivals`.

        Raises:
            RegistryError: No such name (the message lists the known ones and the nearest), two
                plug-ins that offer it, or one that fails to import.
        """
        if name not in self._entries:
            points = {point.value: point for point in entry_points(group=self.group, name=name)}
            if len(points) > 1:
                raise RegistryError(
                    f"The {self.kind} {name!r} is offered twice: by "
                    f"{' and by '.join(sorted(map(_package, points.values())))}. Uninstall one."
                )
            for point in points.values():
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
        for name in self.loaded(cls):
            return name
        raise RegistryError(
            f"The {self.kind} {cls.__qualname__} is not registered; decorate the class with "
            f"@register({cls.__name__.lower()!r})."
        )

    def loaded(self, cls: type) -> list[str]:
        """Return the names under which ``cls`` is registered, none if it is not."""
        return [name for name, known in self._entries.items() if known is cls]

    @contextmanager
    def known(self, cls: T) -> Iterator[None]:
        """Let a class that nobody has registered have a name for a while: its own, if free."""
        if self.loaded(cls):
            yield
            return
        name = cls.__qualname__
        while name in self._entries:  # what has that name may be used meanwhile, and stays
            name += "_"
        self._entries[name] = cls
        try:
            yield
        finally:
            del self._entries[name]

    def plain(self, instance: Any) -> dict[str, Any]:
        """Return an instance of an entry as plain data, from which `by_name` makes it again.

        Raises:
            RegistryError: Its class is not registered.
        """
        return {"name": self.name_of(type(instance)), **instance.model_dump(mode="json")}

    def called(self, instance: Any) -> str:
        """Return how messages call an entry: by its name, and its file if that is an outsider's."""
        cls = type(instance)
        file = source_file(cls)
        name = next((f"{name!r}" for name in self.loaded(cls)), cls.__qualname__)
        own = self.base is not None and _root(cls) == _root(self.base)
        return f"The {self.kind} {name}" + ("" if own or file is None else f" ({file})")

    def call(
        self,
        instance: Any,
        method: str,
        *arguments: Any,
        passes: tuple[type[Exception], ...],
        advice: str,
    ) -> Any:
        """Call an entry's method; whatever it trips over becomes one message that names it.

        Args:
            instance: Whose method.
            method: Its name.
            *arguments: What it is given.
            passes: What it may raise. Memory that runs out is not its fault and passes, too.
            advice: What to do about anything else.

        Raises:
            RegistryError: The method raised something else.
        """
        function: Callable[..., Any] = getattr(instance, method)
        try:
            return function(*arguments)
        except Exception as error:
            if isinstance(error, (MemoryError, *passes)) or "out of memory" in str(error):
                raise
            raise RegistryError(
                f"{self.called(instance)} failed in {method}(): {type(error).__name__}: "
                f"{' '.join(str(error).split())}. {advice}"
            ) from error

    def registered(self) -> set[str]:
        """Return the names that classes have by now; what is installed but not loaded has none."""
        return set(self._entries)

    def names(self) -> list[str]:
        """Return every known name, sorted; plug-ins that are installed but not loaded count."""
        return sorted({*self._entries, *(point.name for point in entry_points(group=self.group))})

    def rivals(self, name: str) -> str | None:
        """Return what to say about installed plug-ins that offer a name which another class has.

        They are left aside, not loaded. None if there are none.
        """
        cls = self._entries.get(name)
        if cls is None:
            return None
        home = cls.__module__.partition(".")[0]
        others = [
            point
            for point in entry_points(group=self.group, name=name)
            if point.value != self._origins.get(name) and point.module.partition(".")[0] != home
        ]
        if not others:
            return None
        return (
            f"The {self.kind} name {name!r} is taken by {_place(cls)}; what "
            f"{' and '.join(map(_package, others))} offers under it is left aside. Rename it there."
        )

    def __contains__(self, name: object) -> bool:
        """Tell whether ``name`` can be asked for."""
        return name in self.names()

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Yield ``(name, class)`` sorted by name; this loads every installed plug-in."""
        for name in self.names():
            yield name, self.get(name)

    def _load(self, point: EntryPoint) -> None:
        before = dict(self._entries)
        try:
            cls = point.load()
            if point.name not in self._entries:
                self.register(point.name)(cls)
        except (Exception, SystemExit) as error:
            # What a module registered before it failed is not to be trusted.
            self._entries = before
            raise RegistryError(
                f"The {self.kind} {point.name!r} comes from {_package(point)}, which does not "
                f"load: {told(error)}. Repair or uninstall that package."
            ) from error
        self._origins[point.name] = point.value


def by_name(registry: Registry[Any]) -> tuple[BeforeValidator, PlainSerializer]:
    """Let ``{name: …, field: …}`` stand for an instance of a registered class, and back.

    For pydantic's ``Annotated[Base, *by_name(registry)]``. A bare name stands for the class with
    its defaults.

    Args:
        registry: Where the names are looked up; its classes are pydantic models.
    """

    def build(value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        if not isinstance(value.get("name"), str):
            raise RegistryError(
                f"The {registry.kind} {value} needs a name, such as "
                f"{{name: {registry.names()[0]}}}; known: {', '.join(registry.names())}."
            )
        fields = {key: entry for key, entry in value.items() if key != "name"}
        cls = registry.get(value["name"])
        for key, field in cls.model_fields.items():
            inner = fields.get(key)
            if isinstance(inner, dict) and (names := registry.loaded(type(field.default))):
                # Fields alone are those of the entry that is there anyway.
                fields[key] = {"name": names[0], **inner}
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise RegistryError(
                f"The {registry.kind} {value['name']} is wrong: {explain(error, cls)}."
            ) from None
        except AdapterError:
            raise
        except Exception as error:
            raise RegistryError(
                f"The {registry.kind} {value['name']!r} ({_place(cls)}) cannot be made: "
                f"{told(error)}. Mend it, or choose another."
            ) from error

    return BeforeValidator(build), PlainSerializer(registry.plain)


def told(error: BaseException) -> str:
    """Return an error as a part of one line: without its kind where it is a message of ours."""
    text = " ".join(str(error).split()).rstrip(".")
    kind = type(error).__name__
    return text if isinstance(error, AdapterError) else f"{kind}: {text}" if text else kind


def _root(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _package(point: EntryPoint) -> str:
    return f"{getattr(point.dist, 'name', 'a plug-in')} ({point.value})"


def source_file(cls: type) -> str | None:
    """Return the file that defines a class; None where there is none, as in a notebook."""
    try:
        return inspect.getsourcefile(cls)
    except (TypeError, OSError):
        return None


def _place(cls: type) -> str:
    file = source_file(cls)
    return f"{file} ({cls.__qualname__})" if file else f"{cls.__module__}.{cls.__qualname__}"
