"""How messages name values, lists, numbers and rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING
from unicodedata import category

if TYPE_CHECKING:
    from pandas import DataFrame

#: They make one sign of several, in emoji and in some scripts.
_JOINERS = "\u200c\u200d"


def shown(value: object, width: int = 50) -> str:
    """Quote a value for a message, on one line and cut to ``width`` characters.

    Characters that are not seen are spelled out, but for those that join others.
    """
    text = " ".join(str(value)[:1000].split())
    quoted = json.dumps(text if len(text) <= width else text[:width] + "…", ensure_ascii=False)
    return "".join(
        json.dumps(c)[1:-1] if category(c) in ("Cc", "Cf") and c not in _JOINERS else c
        for c in quoted
    )


def listed(items: Iterable[str], limit: int = 8) -> str:
    """Join words for a message; what goes beyond ``limit`` is only counted."""
    words = list(items)
    if len(words) > limit:
        words[limit:] = [f"{len(words) - limit:,} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def measured(value: float, spread: float) -> str:
    """Write a number with four digits, or as many as tell it from others of its kind.

    Args:
        value: The number.
        spread: How far such numbers are apart.
    """
    digits = 4
    if value and 0 < spread < math.inf:
        own, apart = (math.floor(math.log10(abs(number))) for number in (value, spread))
        digits = min(15, max(digits, 3 + own - apart))
    return f"{value:.{digits}g}"


def counted(number: int, word: str) -> str:
    """Put a number before a word, for example ``1 row`` or ``1,200 rows``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def agree(number: int, verb: str) -> str:
    """Put a verb, given as it stands after several, into the form that goes with a number."""
    if number != 1:
        return verb
    return {"are": "is", "have": "has", "were": "was"}.get(verb, f"{verb}s")


def row_names(frame: DataFrame, rows: Iterable[object], limit: int = 3) -> str:
    """Name rows as the person counts them, for example ``lines 3, 9 and 14``.

    Args:
        frame: The frame that the rows are from; its index name says what is counted.
        rows: Index values.
        limit: How many are named; the others are counted.
    """
    numbers = [str(row) for row in rows]
    unit = frame.index.name or "row"
    return f"{unit}{'s' * (len(numbers) > 1)} {listed(numbers, limit)}"
