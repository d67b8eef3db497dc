"""Which rows an epoch draws, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Sampler

from recipes.imbalance import draws
from recipes.long_text import Drawn, drawn_tokens
from recipes.problems.classes import Classes
from recipes.recipe import Resample

if TYPE_CHECKING:
    from torch import Generator

#: How many batches are sorted by length together; the more, the less padding and the less chance.
_BUCKET = 50


class LengthBuckets(Sampler[int]):
    """Yields rows so that neighbors are of similar length, in an order fixed by seed and epoch.

    Args:
        lengths: Length of each row, in tokens.
        batch_size: Rows that will be batched together.
        seed: Seed of the order.
        classes: Class of each row; only for `resample`.
        resample: How often classes are drawn; None to yield every row once. An epoch has as many
            rows as there are, whatever is drawn: the rows of a class take turns, so that each is
            drawn as often as any other of its class, give or take one. Rows without a class are
            yielded once.
        rows: The rows, if they too are others in each epoch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        classes: Classes | None = None,
        resample: Resample | None = None,
        rows: Drawn | None = None,
    ) -> None:
        self.rows = rows
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self._rows_of: dict[int, list[int]] = {}
        self._draws: dict[int, int] = {}
        if classes is not None and resample is not None:
            for row, label in enumerate(classes.of):
                self._rows_of.setdefault(label, []).append(row)
            self._draws = draws(classes, resample)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch
        if self.rows is not None:
            self.rows.epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of the epoch."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        rows = _shuffled(self._drawn(generator), generator)
        window = self.batch_size * _BUCKET
        batches = []
        for first in range(0, len(rows), window):
            part = sorted(rows[first : first + window], key=self.lengths.__getitem__)
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # The one batch that is not full stays last, so that no other batch is shifted.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [row for batch in batches if len(batch) < self.batch_size for row in batch]
        for place in torch.randperm(len(full), generator=generator).tolist():
            yield from full[place]
        yield from rest

    def _drawn(self, generator: Generator) -> Sequence[int]:
        if not self._draws:
            return range(len(self.lengths))
        found: list[int] = []
        for label, wanted in self._draws.items():
            rows = self._rows_of[label]
            whole, rest = divmod(wanted, len(rows))
            found += rows * whole + _shuffled(rows, generator)[:rest]
        return found


def epoch_tokens(
    examples: Sequence[Mapping[str, Any]],
    classes: Classes | None = None,
    resample: Resample | None = None,
) -> float:
    """Return the tokens of an epoch; with `resample` their mean over epochs.

    Args:
        examples: The examples that are learnt from.
        classes: Class of each; only for `resample`.
        resample: How often classes are drawn.
    """
    if classes is None or resample is None:
        return sum(map(drawn_tokens, examples))
    rows, tokens = Counter(classes.of), Counter[int]()
    for label, example in zip(classes.of, examples, strict=True):
        tokens[label] += drawn_tokens(example)
    wanted = draws(classes, resample)
    return sum(tokens[label] * wanted[label] / rows[label] for label in rows)


def _shuffled(rows: Sequence[int], generator: Generator) -> list[int]:
    return [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()]
