"""List what recipes can name.

python -m recipes.list strategies|objectives|tasks|assets|recipes [--json]
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from adapters import AdapterError, Registry, strategies
from distill.objectives import objectives
from recipes.console import Parser
from recipes.errors import RecipeError
from recipes.reading import header, shipped_recipes
from recipes.tasks import tasks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="python -m recipes.list", description="List what recipes can name.")
    parser.add_argument("what", choices=LISTS)
    parser.add_argument("--json", action="store_true", help="every entry in full, as JSON")
    try:
        options = parser.parse_args(arguments)
        entries = LISTS[options.what]()
    except (RecipeError, AdapterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False, default=str))
    else:
        width = max(len(entry["name"]) for entry in entries)
        for entry in entries:
            print(f"{entry['name']:<{width}}  {entry['summary']}")
    return 0


def _registered(registry: Registry[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
            "fields": _fields(cls) if issubclass(cls, BaseModel) else {},
        }
        for name, cls in registry
    ]


def _fields(cls: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return {
        name: {"type": inspect.formatannotation(field.annotation), "default": field.default}
        for name, field in cls.model_fields.items()
    }


def _assets() -> list[dict[str, Any]]:
    from recipes.assets import catalogue

    return [
        {
            "name": entry.name,
            "summary": entry.description,
            "kind": entry.kind,
            "license": entry.license,
            "source": entry.source,
        }
        for entry in catalogue().values()
    ]


def _recipes() -> list[dict[str, Any]]:
    return [
        {"name": name, "summary": header(path), "path": str(path)}
        for name, path in shipped_recipes().items()
    ]


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "strategies": lambda: _registered(strategies),
    "objectives": lambda: _registered(objectives),
    "tasks": lambda: _registered(tasks),
    "assets": _assets,
    "recipes": _recipes,
}

if __name__ == "__main__":
    sys.exit(main())
