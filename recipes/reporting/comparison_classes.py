"""How the cells of a comparison treat the rarest label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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


def rarest(folder: Path, name: str) -> Rarest | None:
    """Return how a run's artefact treats the label that the fewest test rows have.

    Args:
        folder: The run's folder.
        name: The row of its ledger.

    Returns:
        None if the rows have no single label, or its predictions are missing or were kept without
        the labels' names by an earlier version.
    """
    import numpy as np

    try:
        with np.load(folder / "predictions" / f"{name}.npz") as kept:
            answers, labels, names = (kept[key] for key in ("test", "test_labels", "labels"))
    except (OSError, KeyError, ValueError):
        return None
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    ids, counts = np.unique(labels, return_counts=True)
    rare = ids[counts.argmin()]
    found = answers[labels == rare].argmax(axis=1) == rare
    return Rarest(str(names[rare]), int(counts.min()), float(found.mean()))
