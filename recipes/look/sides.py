"""Each label by itself, as a question that a row answers with yes or no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.look.examples import Example

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Side:
    """One label.

    Attributes:
        label: Its name.
        has: Which rows have it, ``[rows]``, boolean.
    """

    label: str
    has: np.ndarray

    @property
    def rarer(self) -> int:
        """Return the rows with it, or without it if those are fewer."""
        return min(int(self.has.sum()), int((~self.has).sum()))


def sides_of(examples: Sequence[Example], least: int) -> list[Side]:
    """Return the labels that can be told from the others, those with most rows to compare first.

    Args:
        examples: The rows.
        least: Rows with a label, and rows without it, that are needed.
    """
    import numpy as np

    counts = Counter(name for example in examples for name in example.names)
    enough = [name for name, n in counts.items() if least <= n <= len(examples) - least]
    has = {name: np.zeros(len(examples), bool) for name in enough}
    for row, example in enumerate(examples):
        for name in has.keys() & set(example.names):
            has[name][row] = True
    found = [Side(name, which) for name, which in has.items()]
    return sorted(found, key=lambda side: (-side.rarer, side.label))
