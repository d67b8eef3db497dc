"""The search space, in the language of overrides: ``key=a,b,c`` and ``key=log(low,high)``."""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from recipes.cells import pieces
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from optuna.trial import Trial

#: Digits that a number drawn from a range keeps: enough for a recipe, and a person can read it.
_DIGITS = 4
_FORMS = {
    "log": "log(low,high)",
    "uniform": "uniform(low,high)",
    "float": "float(low,high)",
    "int": "int(low,high[,step])",
    "logint": "logint(low,high)",
}
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Choices:
    """A key with a list of values.

    Numbers are ordered: the search knows that 8 lies between 4 and 16.

    Attributes:
        key: Dotted key of the recipe.
        said: The override as it was typed.
        values: The values, as a recipe would say them.
        ordered: Whether the values are numbers, which then rise.
    """

    key: str
    said: str
    values: tuple[str, ...]
    ordered: bool

    @property
    def ends(self) -> tuple[str, ...]:
        """What has to be tried before one knows that all values are right."""
        return self.values

    @property
    def count(self) -> float:
        """How many values there are."""
        return len(self.values)

    def suggest(self, trial: Trial) -> None:
        """Let a trial draw a value, or take the one that it has."""
        if self.ordered:
            trial.suggest_int(self.key, 0, len(self.values) - 1)
        else:
            trial.suggest_categorical(self.key, self.values)

    def text(self, stored: Any) -> str:
        """Return the value that a study stores as a recipe would say it."""
        return self.values[stored] if self.ordered else str(stored)

    def stored(self, text: str) -> Any:
        """Return what a study stores for one of the values."""
        return self.values.index(text) if self.ordered else text


@dataclass(frozen=True)
class Range:
    """A key with a range of numbers, ends included.

    Attributes:
        key: Dotted key of the recipe.
        said: The override as it was typed.
        low: The lower end.
        high: The upper end.
        whole: Whether only whole numbers are meant.
        log: Whether factors count, rather than differences.
        step: Distance of neighbors, of whole numbers.
    """

    key: str
    said: str
    low: float
    high: float
    whole: bool
    log: bool
    step: int = 1

    @property
    def ends(self) -> tuple[str, ...]:
        """What has to be tried before one knows that all values are right."""
        return (self.text(self.low), self.text(self.high))

    @property
    def count(self) -> float:
        """How many values there are; infinity if nobody can count them."""
        return len(self.values) if self.whole else math.inf

    @property
    def values(self) -> tuple[str, ...]:
        """All values of a range of whole numbers."""
        return tuple(map(str, range(int(self.low), int(self.high) + 1, self.step)))

    def suggest(self, trial: Trial) -> None:
        """Let a trial draw a value, or take the one that it has."""
        if self.whole:
            low, high = int(self.low), int(self.high)
            trial.suggest_int(self.key, low, high, step=self.step, log=self.log)
        else:
            trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def text(self, stored: Any) -> str:
        """Return the value that a study stores as a recipe would say it."""
        if self.whole:
            return str(int(stored))
        short = float(f"{stored:.{_DIGITS}g}")
        return repr(short if self.low <= short <= self.high else float(stored))

    def stored(self, value: Any) -> Any:
        """Return what a study stores for a number, or for its text."""
        return int(float(value)) if self.whole else float(value)

    def holds(self, value: Any) -> bool:
        """Tell whether a recipe's own value lies in the range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        on_grid = not self.whole or (value == int(value) and (value - self.low) % self.step == 0)
        return self.low <= value <= self.high and on_grid


Dimension = Choices | Range


def read_space(overrides: Sequence[str]) -> tuple[tuple[Dimension, ...], tuple[str, ...]]:
    """Part overrides into those that are searched and those that hold for every trial.

    Returns:
        The dimensions, and the other overrides.

    Raises:
        RecipeError: A range is not readable, a key is there twice, or nothing is searched.
    """
    dimensions: list[Dimension] = []
    fixed: list[str] = []
    for override in overrides:
        found = _dimension(override)
        if found is None:
            fixed.append(override)
        else:
            dimensions.append(found)
    keys = [d.key for d in dimensions] + [text.partition("=")[0].strip() for text in fixed]
    if twice := next((d.key for d in dimensions if keys.count(d.key) > 1), None):
        raise RecipeError(f"{twice} is there twice. Write all its values in one: {twice}=A,B.")
    if not dimensions:
        raise RecipeError(
            "There is nothing to search. Give a key several values or a range, such as "
            f"strategy.rank=4,8,16 or 'train.learning_rate=log(1e-5,1e-2)'. {_known()}"
        )
    return tuple(dimensions), tuple(fixed)


def combinations(dimensions: Sequence[Dimension], seed: int) -> list[dict[str, Any]]:
    """Return all points of a space that can be counted, as a study stores them, shuffled."""
    every = [
        {d.key: d.stored(text) for d, text in zip(dimensions, texts, strict=True)}
        for texts in product(*(d.values for d in dimensions))
    ]
    random.Random(seed).shuffle(every)
    return every


def words(dimensions: Sequence[Dimension], stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the overrides that a trial's stored values stand for."""
    return tuple(f"{d.key}={d.text(stored[d.key])}" for d in dimensions if d.key in stored)


def _dimension(override: str) -> Dimension | None:
    """Read an override; None if it has one value only."""
    key, equals, raw = override.partition("=")
    key, raw = key.strip(), raw.strip()
    if not equals or not key:
        raise RecipeError(
            f"{override!r} is not an override; write key=value, key=A,B or key=log(low,high), "
            "without blanks around the sign."
        )
    parts = [part.strip() for part in pieces(raw)]
    if len(parts) > 1:
        return _choices(key, override, parts)
    call = _CALL.fullmatch(raw)
    if call is None:
        return None
    if call[1] in _FORMS:
        return _range(key, override, call[1], call[2])
    if difflib.get_close_matches(call[1], [*_FORMS, "loguniform", "range", "choice", "normal"]):
        raise RecipeError(f"{override!r}: no range is called {call[1]}. {_known()}")
    return None


def _choices(key: str, said: str, parts: Sequence[str]) -> Choices:
    if not all(parts):
        raise RecipeError(f"{said!r} has an empty value. Write {key}=A,B without blanks.")
    if any((call := _CALL.fullmatch(part)) and call[1] in _FORMS for part in parts):
        raise RecipeError(f"{said!r} mixes a range with values. Write either one of them.")
    if twice := next((part for part in parts if parts.count(part) > 1), None):
        raise RecipeError(f"{said!r} names {twice} twice.")
    numbers = [_number(part) for part in parts]
    if all(number is not None for number in numbers):
        rising = sorted(parts, key=lambda part: _number(part) or 0.0)
        return Choices(key, said, tuple(rising), ordered=True)
    return Choices(key, said, tuple(parts), ordered=False)


def _range(key: str, said: str, form: str, inside: str) -> Range:
    numbers = [_number(part.strip()) for part in inside.split(",")]
    wanted = (2, 3) if form == "int" else (2,)
    if len(numbers) not in wanted or None in numbers:
        raise RecipeError(f"{said!r} is not a range. Write {key}={_FORMS[form]} with numbers.")
    low, high, step = (*(number or 0.0 for number in numbers), 1.0)[:3]
    whole, log = form in ("int", "logint"), form in ("log", "logint")
    if whole and any(number != int(number) for number in (low, high, step)):
        raise RecipeError(f"{said!r} has to be of whole numbers, or be written as float(low,high).")
    if not low < high:
        raise RecipeError(f"{said!r}: the lower end comes first, and has to be below the upper.")
    if log and low <= 0:
        raise RecipeError(
            f"{said!r}: a logarithmic range begins above 0; {low:g} has no logarithm. Write a "
            f"small number such as {1 if whole else 1e-5:g}, or {'int' if whole else 'uniform'}."
        )
    if step < 1 or (whole and (high - low) % step):
        raise RecipeError(f"{said!r}: steps of {step:g} do not lead from {low:g} to {high:g}.")
    return Range(key, said, low, high, whole, log, int(step))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _known() -> str:
    return f"Ranges are {', '.join(_FORMS.values())}."
