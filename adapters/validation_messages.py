"""Pydantic's faults in a person's words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first three faults in one line, each with its key and the nearest right name.

    Args:
        error: What validation raised.
        model: The class that was validated.
    """
    messages: dict[str, list[str]] = {}
    for fault in error.errors():
        where, said = _say(fault, model)
        messages.setdefault(where, []).append(said)
    # A value that fits no member of a union gives one fault for each of them, on the same key.
    lines = [f"{where}{' or '.join(dict.fromkeys(said))}" for where, said in messages.items()]
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _say(fault: Any, model: type[BaseModel]) -> tuple[str, str]:
    # Members of a union leave parts such as "constrained-int" and "tuple[int, ...]" in the path.
    last = len(fault["loc"]) - 1 if fault["type"] == "extra_forbidden" else None
    path = [
        part
        for place, part in enumerate(fault["loc"])
        if isinstance(part, int) or part.isidentifier() or place == last
    ]
    where = ".".join(str(part) for part in path)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = _fields_at(path[:-1], model)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}" if near else f"known here: {', '.join(known) or 'none'}"
        return f"unknown key {where!r}: ", hint
    if fault["type"] == "missing":
        return f"the key {where!r} is missing", ""
    if fault["type"] == "value_error":
        return f"{where}: " if where else "", message
    if fault["type"] == "model_type":
        message = f"should be a section with the keys {', '.join(_fields_at(path, model))}"
    if fault["type"] in ("list_type", "tuple_type") and isinstance(fault["input"], list | tuple):
        message = (
            "is a list, which the class takes for no "
            f"{fault['type'].removesuffix('_type')}: its author has to give the field "
            "Field(strict=False)"
        )
        return f"{where}={fault['input']!r} ", message
    if fault["type"] in ("list_type", "tuple_type") and fault["input"] is not None:
        message = f"should be a list: [{fault['input']}]"
    return f"{where}={fault['input']!r} ", message.replace("Input should", "should", 1).replace(
        "tuple", "list"
    )


def _fields_at(path: Sequence[Any], model: type[BaseModel]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        # An optional section is a union of the section and None.
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return sorted(model.model_fields)
