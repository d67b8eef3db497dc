"""Columns by which results are told apart: their values, and the groups that these make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recipes.errors import RecipeError
from recipes.tasks.columns import check_column, label_name, label_names, values_of
from recipes.tasks.wording import counted, shown

if TYPE_CHECKING:
    from pandas import DataFrame

#: Put before a column's name where it goes with texts and labels, which have names of their own.
PREFIX = "slice: "
MISSING = "(missing)"
#: Values of a column that can be told apart at a glance.
_MOST = 30
#: Numbers with more values than this are cut into quarters.
_FEW_NUMBERS = 8


def with_slices(rows: DataFrame, frame: DataFrame, columns: Sequence[str], where: str) -> DataFrame:
    """Give cleaned rows the values of the columns that results are told apart by.

    Args:
        rows: Cleaned rows, with the index of ``frame``.
        frame: The table that they are from.
        columns: Its columns, from ``data.slices``.
        where: What the table is called in messages.

    Raises:
        RecipeError: There is no such column.
    """
    import pandas as pd

    found = {}
    for column in columns:
        check_column(frame, column, "data.slices", where)
        names = [label_name(value) or MISSING for value in values_of(frame[column])]
        found[PREFIX + column] = pd.Series(names, index=frame.index, dtype=object)[rows.index]
    return rows.assign(**found) if found else rows


def check_slices(splits: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """Refuse columns with too many values to be looked at one by one.

    Args:
        splits: Values of the rows by column, for each split that is judged.

    Raises:
        RecipeError: A column that holds no numbers has more than 30 values.
    """
    for column in splits[0]:
        values = {value for each in splits for value in each[column]}
        if len(values) > _MOST and _numbers(sorted(values)) is None:
            raise RecipeError(
                f"data.slices: the column {shown(column)} has {counted(len(values), 'value')}, and "
                f"at most {_MOST} can be told apart. Name another column, or put its values into "
                "fewer groups."
            )


def groups(values: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Return the groups of rows that a column makes, with the rows' places.

    Each value is a group; numbers of which there are many are cut into quarters.

    Args:
        values: The column's value in each row.
    """
    import numpy as np

    present = [value for value in values if value != MISSING]
    numbers = _numbers(present)
    if numbers is not None and len(set(numbers)) > _FEW_NUMBERS:
        edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75)))
        quarters = np.searchsorted(edges, numbers)  # an edge belongs to the quarter below
        ends = [
            (min(inside), max(inside))
            for quarter in range(len(edges) + 1)
            if (inside := [n for n, q in zip(numbers, quarters, strict=True) if q == quarter])
        ]
        order = _ranges(ends)
        named = {
            n: name
            for (low, high), name in zip(ends, order, strict=True)
            for n in numbers
            if low <= n <= high
        }
        values = [value if value == MISSING else named[float(value)] for value in values]
    else:
        order = label_names(present)
    order += [MISSING] * (len(present) < len(values))
    return [(name, [row for row, v in enumerate(values) if v == name]) for name in order]


def _ranges(ends: Sequence[tuple[float, float]]) -> list[str]:
    """Name ranges of numbers: whole ones as they are, others as short as they stay apart."""
    every = {number for pair in ends for number in pair}
    forms = [f".{digits}g" for digits in range(6, 18)]
    if all(number.is_integer() and abs(number) < 1e15 for number in every):
        forms = [".0f"]
    form = next(form for form in forms if len({f"{n:{form}}" for n in every}) == len(every))
    return [f"{low:{form}} to {high:{form}}" for low, high in ends]


def _numbers(values: Sequence[str]) -> list[float] | None:
    """Return the values as numbers; None if there is one that is none."""
    try:
        numbers = [float(value) for value in values if value != MISSING]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
