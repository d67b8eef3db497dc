"""Equal texts among any number of rows: by their hashes, in bounded memory.

Every row is kept as 21 bytes. Once there are too many, only texts whose hash is a multiple of two
are kept, then of four, and so on: equal texts have equal hashes, so that among those kept every
duplicate is still found, and their share is that of all rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from recipes.look.findings import Origin

if TYPE_CHECKING:
    import numpy as np

#: Rows that are kept.
_KEPT = 2_000_000


@dataclass(frozen=True)
class Equals:
    """What equal texts there are, in rows as they are kept.

    Attributes:
        origins: Place in `Prints.origins` of each row, ``[rows]``.
        numbers: The row's number there, ``[rows]``.
        labels: Place in `Prints.labels`, -1 where there is none, ``[rows]``.
        first: Row of the first with the same text, in the same order, ``[rows]``.
        every: One text in so many is kept.
    """

    origins: np.ndarray
    numbers: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    every: int

    @property
    def again(self) -> np.ndarray:
        """Whether an earlier row has the same text, ``[rows]``."""
        import numpy as np

        found: np.ndarray = self.first != np.arange(len(self.first))
        return found


class Prints:
    """Hashes of the texts that were seen.

    Args:
        limit: Rows that are kept.
    """

    def __init__(self, limit: int = _KEPT) -> None:
        self.limit, self.every = limit, 1
        self.origins: list[Origin] = []
        self.labels: dict[str, int] = {}
        self._hashes, self._numbers = array("Q"), array("Q")
        self._labels, self._origins = array("i"), array("B")

    def add(self, origin: Origin, number: int, text: str, label: str | None) -> None:
        """Remember a row."""
        digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        print_ = int.from_bytes(digest, "little")
        if print_ % self.every:
            return
        if origin not in self.origins:
            self.origins.append(origin)
        known = -1 if label is None else self.labels.setdefault(label, len(self.labels))
        self._hashes.append(print_)
        self._numbers.append(number)
        self._labels.append(known)
        self._origins.append(self.origins.index(origin))
        if len(self._hashes) > self.limit:
            self._halve()

    def equals(self) -> Equals:
        """Find the rows with equal texts; earlier ones first, in the order in which they came."""
        import numpy as np

        hashes = np.frombuffer(self._hashes, np.uint64)
        _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        return Equals(
            np.frombuffer(self._origins, np.uint8),
            np.frombuffer(self._numbers, np.uint64),
            np.frombuffer(self._labels, np.int32),
            first[which],
            self.every,
        )

    def names(self, places: Sequence[int]) -> list[str]:
        """Return the labels at some places in `labels`."""
        known = list(self.labels)
        return [known[place] for place in places]

    def _halve(self) -> None:
        import numpy as np

        self.every *= 2
        kept = np.frombuffer(self._hashes, np.uint64) % np.uint64(self.every) == 0
        for name in ("_hashes", "_numbers", "_labels", "_origins"):
            values: array[int] = getattr(self, name)
            left: array[int] = array(values.typecode)
            left.frombytes(np.frombuffer(values, values.typecode)[kept].tobytes())
            setattr(self, name, left)
