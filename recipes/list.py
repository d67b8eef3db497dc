"""List what recipes can name.

python -m recipes.list strategies|objectives|augmentations|tasks|assets|recipes [NAME] [--json]
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapters import AdapterError, Registry, strategies
from adapters.plugins import load_plugins
from adapters.registry import told
from distill import objectives
from export.console import DONE
from recipes.augmentations import augmentations
from recipes.console import Parser, guarded
from recipes.describe import describe, signature
from recipes.errors import RecipeError
from recipes.reading import header, shipped_recipes
from recipes.tasks import tasks

_EPILOG = """\
examples:
  python -m recipes.list strategies
  python -m recipes.list strategies lora          # in full: what each field means
  python -m recipes.list objectives --json

Installed plug-ins are listed too; one that does not load is listed with its fault.
"""
Entry = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _list(_parser().parse_args(arguments)))


def _list(options: argparse.Namespace) -> int:
    load_plugins(options.plugin)
    entries = LISTS[options.what](options.name)
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
    elif options.name is not None:
        _print_full(entries[0])
    else:
        _print_all(entries)
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.list",
        description="List what recipes can name.",
        epilog=_EPILOG,
    )
    parser.add_argument("what", choices=LISTS, metavar="WHAT", help=f"one of {', '.join(LISTS)}")
    parser.add_argument("name", nargs="?", help="show only this one, in full")
    parser.add_argument("--json", action="store_true", help="every entry in full, as JSON")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers strategies or others; repeatable",
    )  # fmt: skip
    return parser


def _print_all(entries: Sequence[Entry]) -> None:
    lines = [_lines(entry) for entry in entries]
    # Where each has a line or two of its own below it, columns help nobody.
    width = 0 if any(lines) else max(len(entry["name"]) for entry in entries)
    for entry, below in zip(entries, lines, strict=True):
        print(f"{entry['name']:<{width}}  {entry.get('fault') or entry['summary']}")
        for line in below:
            print(f"    {line}")


def _lines(entry: Entry) -> list[str]:
    """Return what the list says of an entry under its summary."""
    fields = [signature(name, field) for name, field in entry.get("fields", {}).items()]
    if entry.get("more_fields"):
        fields.append("…")
    return [line for line in (", ".join(fields), entry.get("paper"), entry.get("note")) if line]


def _print_full(entry: Entry) -> None:
    print(f"{entry['name']}  {entry['summary']}")
    if entry.get("details"):
        print(f"\n{textwrap.indent(entry['details'], '    ')}")
    fields: Mapping[str, Any] = entry.get("fields", {})
    if fields:
        print()
    for name, field in fields.items():
        limits = f"  ({field['limits']})" if field["limits"] else ""
        print(f"    {signature(name, field)}{limits}")
        if field["description"]:
            print(textwrap.fill(field["description"], 100, **_INDENTED))
    facts = ["paper", "module", "kind", "license", "source", "path", "note"]
    told = [(fact, entry[fact]) for fact in facts if entry.get(fact)]
    print()
    for fact, value in told:
        print(f"    {fact:<7}  {value}")


_INDENTED: dict[str, Any] = {"initial_indent": " " * 8, "subsequent_indent": " " * 8}


def _registered(registry: Registry[Any], name: str | None) -> list[Entry]:
    """Describe what is registered; one that does not load hides no other, unless it is named."""
    if name is not None:
        return [_noted(registry, name, describe(name, registry.get(name)))]
    entries = []
    for each in registry.names():
        try:
            entries.append(_noted(registry, each, describe(each, registry.get(each))))
        except Exception as error:  # of whatever kind: a plug-in may have any fault
            entries.append({"name": each, "summary": "", "fault": _fault(registry, each, error)})
    return entries


def _fault(registry: Registry[Any], name: str, error: Exception) -> str:
    if isinstance(error, AdapterError):
        return str(error)
    return f"The {registry.kind} {name!r} cannot be described: {told(error)}. Mend it."


def _noted(registry: Registry[Any], name: str, entry: Entry) -> Entry:
    note = registry.rivals(name)
    return entry if note is None else {**entry, "note": note}


def _assets(name: str | None) -> list[Entry]:
    from recipes.assets import catalogue

    entries = [
        {
            "name": entry.name,
            "summary": entry.description,
            "kind": entry.kind,
            "license": entry.license,
            "source": entry.source,
        }
        for entry in catalogue().values()
    ]
    return _only(name, entries, "asset")


def _recipes(name: str | None) -> list[Entry]:
    entries = [
        {"name": name, "summary": header(path), "path": str(path)}
        for name, path in shipped_recipes().items()
    ]
    return _only(name, entries, "recipe")


def _only(name: str | None, entries: list[Entry], kind: str) -> list[Entry]:
    names = [entry["name"] for entry in entries]
    if name is None or name in names:
        return [entry for entry in entries if name in (None, entry["name"])]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RecipeError(f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}.")


LISTS: dict[str, Callable[[str | None], list[Entry]]] = {
    "strategies": lambda name: _registered(strategies, name),
    "objectives": lambda name: _registered(objectives, name),
    "augmentations": lambda name: _registered(augmentations, name),
    "tasks": lambda name: _registered(tasks, name),
    "assets": _assets,
    "recipes": _recipes,
}

if __name__ == "__main__":
    sys.exit(main())
