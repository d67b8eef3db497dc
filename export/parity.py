"""Does a file answer as the model it came from, whatever the batch, the length and the padding?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.errors import ExportError

if TYPE_CHECKING:
    import numpy as np

Call = Callable[[Mapping[str, Any]], "np.ndarray"]
#: Rows that are compared, spread over all lengths.
_ROWS = 256
#: Rows that are also asked one by one.
_ALONE = 64


class ParityError(ExportError):
    """A file does not answer as its origin; the message says on which batch.

    A run ends with 2, as where its gate says no.
    """


@dataclass(frozen=True)
class Parity:
    """How far two models agree over all batches.

    Attributes:
        answers: Answers that were compared; a row counts once for every kind of batch.
        labels: Share of equal labels.
        max_logit_difference: The largest absolute difference of a logit.
        worst: The batch on which it was found.
    """

    answers: int
    labels: float
    max_logit_difference: float
    worst: str


def compare(
    reference: Call,
    candidate: Call,
    examples: Sequence[Mapping[str, Any]],
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    same: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Parity:
    """Ask both models the same batches: single rows, like lengths, mixed and extreme padding.

    Args:
        reference: The origin: a batch's inputs to logits ``[batch, classes]``.
        candidate: The file, likewise.
        examples: Real rows with ``input_ids``.
        collate: Makes a batch of examples, padded to its longest.
        same: Tells for each row of two arrays of logits whether they give the same answer.
    """
    import numpy as np

    equal: list[np.ndarray] = []
    largest, worst = 0.0, "no batch"
    for kind, rows in _batches([len(example["input_ids"]) for example in examples]):
        batch = collate([examples[row] for row in rows])
        one, other = reference(batch), candidate(batch)
        equal.append(same(one, other))
        differences = np.abs(one - other).max(axis=1)
        if float(differences.max()) >= largest or not np.isfinite(differences).all():
            place = int(differences.argmax())
            largest = float(differences[place])
            lengths = [len(examples[row]["input_ids"]) for row in rows]
            worst = (
                f"{kind}: {len(rows)} × {max(lengths)} tokens (shortest {min(lengths)}), "
                f"row {rows[place]}"
            )
    joined = np.concatenate(equal)
    return Parity(len(joined), float(joined.mean()), largest, worst)


def require_equal(parity: Parity, tolerance: float, what: str) -> None:
    """Refuse a file that does not answer as its origin.

    Args:
        parity: What `compare` found.
        tolerance: The largest difference of a logit allowed; all labels must agree besides.
        what: Which file against which, for the message.

    Raises:
        ParityError: It differs.
    """
    if parity.labels < 1 or not parity.max_logit_difference <= tolerance:
        raise ParityError(
            f"{what} fails parity: logits differ by {parity.max_logit_difference:.3g} (allowed "
            f"{tolerance:.0e}) and {parity.labels:.2%} of labels agree; worst at {parity.worst}. "
            "Try export.optimize=none, or another student (distill.student.model=…)."
        )


def _batches(lengths: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Yield kinds of batches, over rows that are spread evenly over the lengths."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    chosen = order[:: max(1, len(order) // _ROWS)]
    alone = chosen[:: max(1, len(chosen) // _ALONE)]
    mixed = random.Random(0).sample(chosen, len(chosen))
    half = len(chosen) // 2
    extreme = [
        row for pair in zip(chosen[:half], reversed(chosen[half:]), strict=False) for row in pair
    ]
    yield from (("a row alone", [row]) for row in alone)
    for kind, rows, width in (
        ("like lengths", chosen, 8),
        ("mixed lengths", mixed, 8),
        ("short with long", extreme, 2),
        ("short with long", extreme, 32),
    ):
        for first in range(0, len(rows), width):
            yield kind, rows[first : first + width]
