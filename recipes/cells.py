"""The cells of a comparison: from overrides with several values to recipes that are run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from adapters.errors import AdapterError
from distill.errors import DistillError
from recipes.errors import RecipeError
from recipes.reading import plain, read_recipe
from recipes.recipe import Recipe

_OPENING, _CLOSING = "[{(", "]})"
#: What lets a strategy learn that cannot learn on frozen weights.
_FLOAT_WEIGHTS = "backbone.quantization=none"


@dataclass(frozen=True)
class Cell:
    """One recipe of a comparison.

    Attributes:
        label: What sets it apart from the others, short.
        folder: A name for its folder.
        own: The overrides that are not every cell's.
        overrides: All of them, in their order.
    """

    label: str
    folder: str
    own: tuple[str, ...]
    overrides: tuple[str, ...]


def make_cells(recipe: str, overrides: Sequence[str], variants: Sequence[str]) -> list[Cell]:
    """Return the cells of a comparison.

    Args:
        recipe: The recipe's name, for the label of a cell that has nothing of its own.
        overrides: ``key=value`` each; one whose value holds commas outside of brackets and quotes
            is an axis, and the cells are the product of all axes.
        variants: Overrides of further cells, separated as a shell does. Without an axis they are
            the only cells.

    Raises:
        RecipeError: An axis has an empty value, or is there twice; a variant is not readable.
    """
    axes = {place: values for place, o in enumerate(overrides) if len(values := _values(o)) > 1}
    shared = [override for place, override in enumerate(overrides) if place not in axes]
    keys = Counter(overrides[place].partition("=")[0] for place in axes)
    if keys and (twice := keys.most_common(1)[0])[1] > 1:
        raise RecipeError(f"The axis {twice[0]} is there twice. Write all its values in one.")
    settings = [(own, (*shared, *own)) for own in map(_words, variants)]
    if axes or not variants:
        crossed = product(*axes.values())
        settings = [(own, (*shared, *own)) for own in crossed] + settings
    labels = short_labels([own for own, _ in settings], Path(recipe).stem)
    folders = _folders(labels)
    return [
        Cell(label, folder, own, every)
        for label, folder, (own, every) in zip(labels, folders, settings, strict=True)
    ]


def check_cells(
    recipe: str, cells: Sequence[Cell], seeds: Sequence[int], plugins: Sequence[str]
) -> dict[tuple[str, int], Recipe]:
    """Read the recipe of every cell and seed.

    Returns:
        Recipes by the cell's label and the seed.

    Raises:
        RecipeError: Cells that are wrong, each with its fault; or two that are the same.
    """
    recipes: dict[tuple[str, int], Recipe] = {}
    faults: dict[str, str] = {}
    for cell in cells:
        try:
            for seed in seeds:
                given = [*cell.overrides, f"seed={seed}"]
                recipes[cell.label, seed] = read_recipe(recipe, given, plugins)
        except (RecipeError, AdapterError, DistillError) as error:
            faults[cell.label] = f"{error}{_remedy(recipe, cell, plugins)}"
    if faults:
        raise RecipeError(_joined(faults, len(cells)))
    for place, cell in enumerate(cells):
        for other in cells[:place]:
            one, two = (plain(recipes[c.label, seeds[0]]) for c in (other, cell))
            if one == two:
                raise RecipeError(
                    f"The cells {other.label} and {cell.label} are the same recipe. Leave one out."
                )
    return recipes


def _values(override: str) -> list[str]:
    """Split an axis into one override for each value."""
    key, equals, raw = override.partition("=")
    values = [value.strip() for value in pieces(raw)]
    if len(values) > 1 and not all(values):
        raise RecipeError(f"{override!r} has an empty value. Write {key}=A,B without blanks.")
    return [f"{key}{equals}{value}" for value in values]


def pieces(text: str) -> Iterator[str]:
    """Cut a text at commas that stand outside of brackets and quotes."""
    depth, quote, start, before = 0, "", 0, ","
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and before in f"{_OPENING},:":
            quote = character
        elif character in _OPENING + _CLOSING:
            depth += 1 if character in _OPENING else -1
        elif character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
        before = before if character.isspace() else character
    yield text[start:]


def _words(variant: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(variant))
    except ValueError as error:
        raise RecipeError(
            f"--variant {variant!r} cannot be split into overrides ({error}); write "
            '--variant "key=value key=value".'
        ) from None


def short_labels(settings: Sequence[Sequence[str]], otherwise: str) -> list[str]:
    """Return a label for each cell's own overrides, as short as they stay apart."""
    parts = [dict(pair for override in own for pair in _settings(override)) for own in settings]
    ends = Counter(key.rpartition(".")[2] for key in {key for part in parts for key in part})
    labels = [
        " ".join(_label(key, value, ends) for key, value in part.items()) or otherwise
        for part in parts
    ]
    seen = Counter(labels)
    return [
        label if seen[label] == 1 else " ".join(own) or otherwise
        for label, own in zip(labels, settings, strict=True)
    ]


def _settings(override: str) -> Iterator[tuple[str, str]]:
    """Take ``strategy={name: lora, rank: 8}`` apart into its dotted keys."""
    key, _, value = override.partition("=")
    if value.startswith("{") and value.endswith("}"):
        for piece in pieces(value[1:-1]):
            inner, _, content = piece.partition(":")
            yield f"{key}.{inner.strip()}", content.strip()
    else:
        yield key.strip(), value


def _label(key: str, value: str, ends: Mapping[str, int]) -> str:
    if key in ("strategy", "strategy.name"):
        return value
    last = key.rpartition(".")[2]
    shown = Path(value).name if Path(value).is_absolute() else value
    return f"{last if ends[last] == 1 else key}={shown}"


def _folders(labels: Sequence[str]) -> list[str]:
    """Return a folder's name for each label; equal ones are numbered."""
    names: list[str] = []
    for label in labels:
        name = re.sub(r"[^\w.=+-]+", "-", label).strip("-.") or "cell"
        number = sum(
            re.fullmatch(rf"{re.escape(name)}(~\d+)?", other) is not None for other in names
        )
        names.append(f"{name}~{number + 1}" if number else name)
    return names


def _remedy(recipe: str, cell: Cell, plugins: Sequence[str]) -> str:
    """Say how to write a cell that only lacks float weights."""
    try:
        read_recipe(recipe, [*cell.overrides, _FLOAT_WEIGHTS], plugins)
    except (RecipeError, AdapterError, DistillError):
        return ""
    own = " ".join([*map(shlex.quote, cell.own), _FLOAT_WEIGHTS])
    return f" To compare it all the same, give it as --variant {shlex.quote(own)} instead."


def _joined(faults: Mapping[str, str], cells: int) -> str:
    if len(set(faults.values())) == 1 and len(faults) == cells:
        return next(iter(faults.values()))
    told = " ".join(f"[{label}] {fault}" for label, fault in faults.items())
    return f"{len(faults)} of {cells} cells cannot be run, so none was started. {told}"
