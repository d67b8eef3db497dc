"""What a run has kept of an artefact's answers, read without its data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from recipes.ledger import Row
from recipes.problems import Problem, problems

if TYPE_CHECKING:
    import numpy as np

#: What rows are about in ledgers that do not say it, by their headline.
_BEFORE = {"micro_f1": "multi_label", "r2": "regression"}


@dataclass(frozen=True)
class Kept:
    """An artefact's answers to the test rows.

    Attributes:
        problem: What kind of answer the rows have.
        logits: ``[rows, outputs]``.
        truth: What the rows say, in the form of `recipes.tasks.Split.labels`.
    """

    problem: Problem
    logits: np.ndarray
    truth: np.ndarray


def problem_of(row: Row) -> str:
    """Return what kind of answer a row's test rows have: a name from `recipes.problems`."""
    return row.problem or _BEFORE.get(row.headline, "single_label")


def kept(folder: Path, row: Row) -> Kept | None:
    """Return an artefact's answers to the test rows.

    Args:
        folder: The run's folder.
        row: The artefact's.

    Returns:
        None if its predictions are missing, or were kept by an earlier version, without the rows'
        labels or their names.
    """
    import numpy as np

    try:
        with np.load(folder / "predictions" / f"{row.name}.npz") as found:
            logits, truth, names = (found[key] for key in ("test", "test_labels", "labels"))
            facts = json.loads(str(found["facts"])) if "facts" in found else {}
    except (OSError, KeyError, ValueError, BadZipFile):
        return None
    problem: Problem = problems.get(problem_of(row))(names.tolist(), facts=facts)
    return Kept(problem, logits, truth)
