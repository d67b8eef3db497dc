"""What kind of answer the rows of a table have, found from what its label column holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.tasks.columns import is_list, label_name, number, unpacked
from recipes.tasks.wording import counted, listed, shown

if TYPE_CHECKING:
    from recipes.recipe import DataSettings

#: Names of columns whose whole numbers have an order, more likely than not.
_ORDERED = ("stars", "star", "rating", "score", "grade", "level", "severity", "priority")
#: More different whole numbers than this are no classes; nor are more than these with so few rows.
_MOST_CLASSES, _MANY_CLASSES, _ROWS_OF_A_CLASS = 200, 20, 3
#: Share of the values that may be something else where a column seems to hold numbers.
_ODD = 0.1
#: What may part several labels in one field.
_MARKS = (";", "|", ",")
#: Share of the parts that are met elsewhere, too, if a mark parts labels.
_KNOWN = 0.8
#: A number as it is written for people: with a unit, a decimal comma or groups of three digits.
_WRITTEN = re.compile(r"[-+]?[$€£]? ?\d+(?:[., ]\d{3})*(?:[.,]\d+)? ?[%$€£]?")


def find_problem(
    values: Sequence[Any], column: str, settings: DataSettings, where: str
) -> tuple[str, list[str]]:
    """Find out what kind of answer the rows have.

    Args:
        values: What the label column holds, or tuples where there are several columns.
        column: What it is called.
        settings: Of which `DataSettings.problem`, if it is given, has the last word.
        where: What the table is called in messages.

    Returns:
        A name from `recipes.problems`, and notes that say aloud what was guessed.

    Raises:
        RecipeError: Nearly all values are numbers that no class can be, and some are not, or all
            are written so that they are no numbers to a program.
    """
    called = f"{shown(column)} of {where}"
    present = [value for value in values if is_list(value) or label_name(value) is not None]
    if isinstance(settings.label, tuple) or settings.separator is not None:
        return "multi_label", []
    if settings.problem != "auto":
        several = settings.problem == "multi_label"
        return settings.problem, _parted(present, called) if several else []
    if settings.order is not None:
        return "ordinal", []
    spelled = sum(is_list(unpacked(value)) for value in present)
    if any(map(is_list, present)) or 2 * spelled > len(present):
        return "multi_label", [
            f"{called} holds lists: taken as several labels a text (data.problem=multi_label)."
        ]
    numbers = [number(value) for value in present]
    known = [value for value in numbers if value is not None]
    odd = [value for value, found in zip(present, numbers, strict=True) if found is None]
    ordered = column.strip().lower() in _ORDERED
    if odd or not known:
        return "single_label", _no_numbers(known, odd, called, ordered=ordered)
    return _of_numbers(known, called, ordered=ordered)


def _of_numbers(numbers: Sequence[float], called: str, *, ordered: bool) -> tuple[str, list[str]]:
    different = len(set(numbers))
    if _measured(numbers):
        return "regression", [
            f"{called} holds numbers, {counted(different, 'different one')}: taken as a "
            "regression. For classes set data.problem=single_label."
        ]
    if different > 2 and ordered:
        return "ordinal", [
            f"{called} holds {different} whole numbers: taken as labels with an order "
            "(data.problem=ordinal). For classes without one set data.problem=single_label."
        ]
    return "single_label", []


def _measured(numbers: Sequence[float]) -> bool:
    """Say whether numbers are measured rather than names of classes."""
    different = len(set(numbers))
    whole = all(one.is_integer() for one in numbers)
    return not whole or different > _MOST_CLASSES or _too_many(different, len(numbers))


def _too_many(different: int, rows: int) -> bool:
    """Say whether there are too many different values in so many rows for them to be classes."""
    return different > _MANY_CLASSES and rows < _ROWS_OF_A_CLASS * different


def _no_numbers(
    known: Sequence[float], odd: Sequence[Any], called: str, *, ordered: bool
) -> list[str]:
    """Tell of a column that nearly holds numbers, or refuse it if it cannot hold classes."""
    names = [name for value in odd if (name := label_name(value)) is not None]
    told = listed(dict.fromkeys(map(shown, names)), 3)
    if len(odd) <= _ODD * len(known):
        if _measured(known):
            raise RecipeError(
                f"{called} holds numbers, but for {counted(len(odd), 'row')} with {told}. Write "
                "numbers there or empty these fields; or, if these are names of classes, set "
                "data.problem=single_label."
            )
        if ordered and len(set(known)) > 2:
            return [
                f"{called} holds whole numbers, but for {told}: taken as classes without an order. "
                "If they have one, empty these fields, or name all labels from low to high in "
                "data.order."
            ]
    written = sum(map(bool, map(_WRITTEN.fullmatch, names)))
    nearly = written + len(known) >= (1 - _ODD) * (len(odd) + len(known))
    if nearly and _too_many(len(set(names)), len(names)):
        raise RecipeError(
            f"{called} seems to hold numbers, written as {told}. Write them as 1234.5, without "
            "units and groups of digits; or, if these are names of classes, set "
            "data.problem=single_label, and if they are several at a time, data.separator."
        )
    if written >= (1 - _ODD) * len(odd):
        return [
            f"{called} seems to hold numbers, written as {told}: taken as names of classes. For "
            "numbers write them as 1234.5, without units and groups of digits; for several labels "
            "a text set data.separator."
        ]
    return _parted(odd, called)


def _parted(values: Sequence[Any], called: str) -> list[str]:
    """Tell of labels that seem to be several in one field."""
    names = {value.strip() for value in values if isinstance(unpacked(value), str)}
    for mark in _MARKS:
        several = {name: [part.strip() for part in name.split(mark)] for name in names}
        several = {name: parts for name, parts in several.items() if len(parts) > 1}
        parts = Counter(part for each in several.values() for part in {*each})
        met = sum(part in names or rows > 1 for part, rows in parts.items())
        if len(several) > 1 and met >= _KNOWN * len(parts):
            example = min(several)
            return [
                f"Labels of {called} such as {shown(example)} seem to be several, parted by "
                f"{shown(mark)}, and are taken as one. For several labels a text set "
                f"data.separator={shown(mark)}."
            ]
    return []
