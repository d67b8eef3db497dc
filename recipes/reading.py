"""From a recipe's file and the command line's overrides to a checked recipe."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adapters.plugins import load_plugins
from adapters.validation_messages import explain
from recipes.assets.asset import Kind
from recipes.assets.uri import check_name
from recipes.errors import RecipeError
from recipes.recipe import Recipe
from recipes.rivals import note_rivals
from recipes.tasks import tasks
from recipes.tasks.tables import read_table

SHIPPED = Path(__file__).parent

#: Keys of which a later word takes the place of an earlier one: naming a file drops the source.
_ALTERNATIVES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data",): ("source", "train"),
    ("phases",): ("classes", "column", "files"),
}
#: Files that belong to `data.train`, and go when it is replaced.
_COMPANIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data",): ("validation", "test", "text", "label")
}

#: Sections that are one of several classes, by name.
_NAMED = (("strategy",), ("train", "loss"))

_FILES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".py")
#: Keys that may hold a local path or a list of them. The resolved recipe says where they lie,
#: whatever folder it is run from.
_PATHS = (
    (("data",), "source"),
    (("data",), "train"),
    (("data",), "validation"),
    (("data",), "test"),
    (("phases",), "files"),
    (("backbone",), "model"),
    (("distill", "student"), "model"),
    (("distill",), "teachers"),
    (("distill",), "text"),
    (("distill", "imitate"), "text"),
)


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: ``1e-3`` is a number, ``no`` is a word, no key comes twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]!r} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if not tag.endswith((":bool", ":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the project, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def header(path: Path) -> str:
    """Return a recipe file's first comment line."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


#: Marks that mean something to YAML and are given as they are.
_MARKS = ("|", ">", "&", "*", ",", ":", "-", "#", "!", "%", "@", "`")


def read_recipe(name: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Recipe:
    """Read a recipe, lay the overrides over it and check the whole.

    Args:
        name: A shipped recipe's name, or the path of a YAML file.
        overrides: ``dotted.key=value`` each; the value is read as YAML.
        plugins: Further plug-in modules, loaded before the recipe's names are looked up.

    Raises:
        RecipeError: No such recipe, unreadable YAML, an unknown key, a wrong type, or
            settings that cannot go together.
        RegistryError: A plug-in does not load, or a name is unknown.
    """
    tree = _read_tree(_find(name), ())
    said: dict[str, Any] = {}
    for override in overrides:
        said = _laid_over(said, _parse_override(override))
    tree = _merge(tree, said, ())
    listed = tree.get("plugins") or []
    if isinstance(listed, list):
        wanted = [_absolute(plugin) for plugin in (*listed, *plugins)]
        tree["plugins"] = list(dict.fromkeys(wanted))
        load_plugins(tree["plugins"])
    for section, key in _PATHS:
        _make_absolute(tree, section, key)
    recipe = check(tree, where=name)
    note_rivals(recipe)
    tasks.get(recipe.task)
    for uri, kind in _named_assets(recipe):
        check_name(uri, kind)
    later = (recipe.phases and recipe.phases.files) or ()
    for file in (recipe.data.train, recipe.data.validation, recipe.data.test, *later):
        if file is not None and not Path(file).is_file():
            read_table(Path(file))  # it says what is there instead
    return recipe


def _named_assets(recipe: Recipe) -> list[tuple[str, Kind]]:
    """Return what the recipe names that has to be found somewhere."""
    distill = recipe.distill
    models = [recipe.backbone.model, distill.student.model, *distill.teachers]
    named: list[tuple[str | None, Kind]] = [(name, "model") for name in models]
    texts = [distill.text, distill.imitate.text if distill.imitate is not None else None]
    named += [(name, "data") for name in (recipe.data.source, *texts)]
    return [(name, kind) for name, kind in named if name is not None]


def check(tree: Mapping[str, Any], where: str) -> Recipe:
    """Build a recipe from plain data.

    Raises:
        RecipeError: What is wrong, key by key, with the nearest right names.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(f"The recipe {where} is wrong: {explain(error, Recipe)}.") from None


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain data: what `check` reads back to an equal recipe."""
    return recipe.model_dump(mode="json")


def changes(before: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return the dotted keys at which a recipe that a run has kept differs from another.

    A key that did not exist when the run was made counts as its default.

    Args:
        before: The kept recipe, as plain data.
        recipe: The other.
    """
    with suppress(RecipeError):  # a key of it exists no more, and differs
        before = plain(check(before, "of the run"))
    return differences(before, plain(recipe))


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys at which two plain recipes differ."""
    found: list[str] = []
    for key in sorted({*one, *other}):
        left, right = one.get(key), other.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}")
    return found


def _find(name: str) -> Path:
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    path = Path(os.path.expanduser(name))  # noqa: PTH111
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        if path.is_file():
            return path
        raise RecipeError(f"There is no recipe file {name}. Check the path.")
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RecipeError(
        f"There is no recipe {name!r}.{hint} Shipped: {', '.join(shipped)}; "
        "or give the path of a YAML file."
    )


def _read_tree(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file and what it extends."""
    resolved = path.resolve()
    if resolved in chain:
        raise RecipeError(f"The recipe {path} extends itself, by way of {chain[-1]}.")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe {path} is not readable YAML: {_told(error)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}.") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"The recipe {path} has to be a mapping of keys such as 'data: …'.")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    nearby = path.parent / str(base)
    parent = nearby if nearby.is_file() else _find(str(base))
    return _merge(_read_tree(parent, (*chain, resolved)), tree, ())


def _merge(base: dict[str, Any], over: Mapping[str, Any], at: tuple[str, ...]) -> dict[str, Any]:
    """Lay one tree over another: sections merge, everything else is replaced."""
    merged = dict(base)
    names = _ALTERNATIVES.get(at, ())
    for key in over:
        if key in names:
            for dropped in (*names, *_COMPANIONS.get(at, ())):
                merged.pop(dropped, None)
    named = at[:1] == ("strategy",) or at in _NAMED
    if named and over.get("name", merged.get("name")) != merged.get("name"):
        # Another strategy has other fields: those of the old one go with its name.
        merged = {}
    for key, value in over.items():
        if _is_named((*at, key)):
            merged[key] = _spelled_out(merged.get(key), value)
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value, (*at, str(key)))
        else:
            merged[key] = value
    return merged


def _laid_over(
    base: dict[str, Any], over: Mapping[str, Any], at: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Put one override's tree into the tree of all of them, in whatever order they were given."""
    merged = dict(base)
    for key, value in over.items():
        place, known = (*at, key), merged.get(key)
        if _is_named(place):
            known, value = _spelled_out(known, value), _spelled_out(value, known)
        both = isinstance(value, Mapping) and isinstance(known, dict)
        merged[key] = _laid_over(known, value, place) if both and known is not None else value
    return merged


def _is_named(place: tuple[str, ...]) -> bool:
    """Tell whether a section is one of several classes by name: a strategy inside another, too."""
    return place in _NAMED or (place[:1] == ("strategy",) and place[-1] == "base")


def _spelled_out(one: Any, other: Any) -> Any:
    """Return a bare name as a section if it meets one, and anything else as it is."""
    return {"name": one} if isinstance(one, str) and isinstance(other, Mapping) else one


def _make_absolute(tree: dict[str, Any], section: tuple[str, ...], key: str) -> None:
    node: Any = tree
    for part in section:
        node = node.get(part) if isinstance(node, dict) else None
    value = node.get(key) if isinstance(node, dict) else None
    if isinstance(value, str):
        node[key] = _absolute(value)
    elif isinstance(value, list):
        node[key] = [_absolute(name) if isinstance(name, str) else name for name in value]


def _absolute(name: Any) -> Any:
    """Return a path as an absolute one, and any other name as it is."""
    path = os.path.expanduser(str(name))  # noqa: PTH111  (leaves an unknown user's ~ as it is)
    is_path = path.startswith((".", "/", "~")) or Path(path).suffix in _FILES
    is_path = is_path or (os.sep in path and ":" not in path and Path(path).exists())
    return str(Path(path).absolute()) if is_path else name


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            f"{text!r} is not an override; write key=value, such as train.epochs=2, no spaces."
        )
    try:
        # A mark alone, such as the | between labels, is a block of nothing to YAML.
        value: Any = raw if raw in _MARKS else yaml.load(raw, _Loader) if raw else None
    except yaml.YAMLError as error:
        raise RecipeError(f"The value in {text!r} is not readable: {_told(error)}.") from None
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _told(error: yaml.YAMLError) -> str:
    """Say in one line what is wrong, and in which line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', None) or 'it ends too soon'} (line {mark.line + 1})"
