"""The classes that rows are counted, drawn and copied as, where labels are of unequal size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The class of a row without a label, and its label where a row has one; losses leave it out.
UNLABELLED = -100


@dataclass(frozen=True)
class Classes:
    """The class of each row, and how many rows have what it stands for.

    Attributes:
        of: Class of each row, a number; `UNLABELLED` for one whose labels are not known.
        sizes: How many rows have the label of a class. Where a row may have several labels they are
            more than the rows of the class.
    """

    of: Sequence[int]
    sizes: Mapping[int, int]

    @classmethod
    def of_ids(cls, labels: Sequence[int]) -> Classes:
        """Return the classes of rows that have one label each."""
        return cls(labels, Counter(label for label in labels if label != UNLABELLED))

    @classmethod
    def of_sets(cls, labels: Sequence[Any], count: int) -> Classes:
        """Return the classes of rows with any number of labels: the rarest that a row has.

        Drawing a row more often draws all its labels more often: it should be for the rarest. Rows
        without any are a class of their own, and count as no rarer than the most frequent label.

        Args:
            labels: 0 and 1 for each label, ``[rows, labels]``, or `UNLABELLED`.
            count: How many labels there are; it is the class of rows without any.
        """
        import numpy as np

        there = np.asarray(labels).reshape(len(labels), count)
        sizes = (there == 1).sum(axis=0)
        rarest = np.where(there == 1, sizes, len(labels) + 1).argmin(axis=1)
        found = np.where((there == 1).any(axis=1), rarest, count)
        found = np.where((there < 0).any(axis=1), UNLABELLED, found)
        none = max(int((found == count).sum()), int(sizes.max(initial=0)))
        return cls(found.tolist(), dict(enumerate([*sizes.tolist(), none])))
