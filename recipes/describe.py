"""What a registered class tells of itself: its summary, its fields, their types and defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from adapters import Registry, Strategy, strategies
from distill import Objective, objectives
from recipes.augmentations import Augmentation, augmentations

_REGISTRIES: tuple[tuple[type, Registry[Any]], ...] = (
    (Strategy, strategies),
    (Objective, objectives),
    (Augmentation, augmentations),
)
_LIMITS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
#: One entry of a docstring's Attributes section: its name, and what is said of it.
_ENTRY = re.compile(r"^ {4}(\w+)(?: \(.*?\))?: (.*(?:\n {5,}.*)*)", re.MULTILINE)


def describe(name: str, cls: type) -> dict[str, Any]:
    """Return all that lists show of a class, as plain data.

    Args:
        name: The name under which it is registered.
        cls: The class.

    Returns:
        ``name``, ``summary`` (the docstring's first line), ``details`` (its other lines, without
        the sections), ``paper``, ``module`` and ``fields``: from a field's name to its ``type``,
        ``description``, ``limits`` and, unless it has to be given, its ``default``.
    """
    summary, _, rest = (inspect.getdoc(cls) or "").partition("\n")
    details = re.split(r"^[A-Z]\w+:$", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return {
        "name": name,
        "summary": summary,
        "details": details.strip(),
        "paper": getattr(cls, "paper", ""),
        "module": cls.__module__,
        "fields": _fields(cls) if issubclass(cls, BaseModel) else {},
        "more_fields": issubclass(cls, BaseModel) and cls.model_config.get("extra") == "allow",
    }


def signature(name: str, field: dict[str, Any]) -> str:
    """Return a field of `describe` as a person reads it: ``rank: int = 16``."""
    default = f" = {in_yaml(field['default'])}" if "default" in field else ""
    return f"{name}: {field['type']}{default}"


def in_yaml(value: Any) -> str:
    """Return plain data in one line, as a recipe has it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _fields(cls: type[BaseModel]) -> dict[str, dict[str, Any]]:
    told = _descriptions(cls)
    # A class's own fields first, then those of its base.
    own = [name for base in cls.__mro__ for name in inspect.get_annotations(base)]
    found = {}
    for name in dict.fromkeys(name for name in own if name in cls.model_fields):
        field = cls.model_fields[name]
        found[name] = {
            "type": _type(field.annotation),
            "description": field.description or told.get(name, ""),
            "limits": _limits(field.metadata),
        }
        if not field.is_required():
            found[name]["default"] = _default(field)
    return found


def _default(field: FieldInfo) -> Any:
    value: Any = field.get_default(call_default_factory=True)
    for _, registry in _REGISTRIES:
        for name in registry.loaded(type(value)):
            # What differs from that class's own defaults says it all.
            return {"name": name, **value.model_dump(mode="json", exclude_defaults=True)}
    return to_jsonable_python(value)


def _descriptions(cls: type) -> dict[str, str]:
    """Return what the Attributes sections of a class and its bases say of each attribute."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        document = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        section = document.partition("\nAttributes:\n")[2]
        section = re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]
        found |= {name: " ".join(text.split()) for name, text in _ENTRY.findall(section)}
    return found


def _limits(metadata: Iterable[Any]) -> str:
    limits = [
        f"{sign} {getattr(entry, kind)}"
        for entry in metadata
        for kind, sign in _LIMITS.items()
        if hasattr(entry, kind)
    ]
    return ", ".join(limits)


def _type(annotation: Any) -> str:
    """Return a type in words of a recipe."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is NoneType:
        return "null"
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " | ".join(in_yaml(choice) for choice in inner)
    if origin in (Union, UnionType):
        return " | ".join(map(_type, inner))
    if origin in (list, tuple, set, frozenset):
        items = dict.fromkeys(_type(item) for item in inner if item is not ...)
        return f"list of {' | '.join(items)}"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    for base, registry in _REGISTRIES:
        if isinstance(annotation, type) and issubclass(annotation, base):
            return registry.kind
    return getattr(annotation, "__name__", str(annotation))
