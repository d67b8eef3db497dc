"""How the cells of a comparison treat the rarest label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipes.ledger import Row
from recipes.predictions import kept


@dataclass(frozen=True)
class Rarest:
    """The label that the fewest test rows have.

    Attributes:
        label: Its name.
        rows: How many test rows have it.
        recall: How many of these were found, a fraction.
    """

    label: str
    rows: int
    recall: float


def rarest(folder: Path, row: Row) -> Rarest | None:
    """Return how a run's artefact treats the label that the fewest test rows have.

    Args:
        folder: The run's folder.
        row: The artefact's.

    Returns:
        None if the rows have no single label, or its predictions are missing or were kept without
        the labels' names by an earlier version.
    """
    import numpy as np

    found = kept(folder, row)
    if found is None or not found.problem.exclusive:
        return None
    ids, counts = np.unique(found.truth, return_counts=True)
    rare = ids[counts.argmin()]
    given = found.problem.answers(found.logits[found.truth == rare])
    label = found.problem.told(rare)
    return Rarest(label, int(counts.min()), float((given == rare).mean()))
