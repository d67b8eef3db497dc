"""What the students of a comparison came to, with their teacher and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.ledger import Ledger
from recipes.reporting.bootstrap import RESAMPLES, Gain, paired_gain
from recipes.reporting.units import metric_words

if TYPE_CHECKING:
    import numpy as np

    from recipes.reporting.comparison import Result

#: The row that has a teacher, the row that has none, and how their figures are named.
STUDENTS = {"student": "student", "student-alone": "alone"}


def student_figures(ledger: Ledger, metric: str | None = None) -> dict[str, float]:
    """Return what a run's students measured, by name; nothing if it has not finished both.

    Beside accuracy they are told ``metric``, if one is named.

    ``gain`` is the test accuracy of the student less that of the one without a teacher,
    ``teacher_share`` the student's as a share of the teacher's, fractions.
    """
    if not all(name in ledger for name in STUDENTS):
        return {}
    found: dict[str, float] = {}
    for name, short in STUDENTS.items():
        row = ledger[name]
        found[f"{short}_validation_accuracy"] = row.validation_score
        found[f"{short}_test_accuracy"] = row.score
        if metric is not None:
            found[f"{short}_validation_{metric}"] = row.validation[metric]
            found[f"{short}_test_{metric}"] = row.metrics[metric]
        found[f"{short}_seconds"] = row.seconds
        if row.tokens_read:
            found[f"{short}_tokens"] = row.tokens_read
    own = found["student_test_accuracy"]
    found["gain"] = own - found["alone_test_accuracy"]
    if teacher := ledger["teacher"].score:
        found["teacher_share"] = own / teacher
    return found


def gain_of(folders: Sequence[Path]) -> Gain | None:
    """Return what the student gains on the one without a teacher, over rows and seeds.

    Args:
        folders: Runs of one cell, a seed each.

    Returns:
        None if predictions are missing, or were kept without labels by an earlier version.
    """
    import numpy as np

    try:
        one, other = (np.stack([_right(f, name) for f in folders]) for name in STUDENTS)
    except (OSError, KeyError, ValueError):  # no file; no labels; other rows
        return None
    return paired_gain(one, other)


def _right(folder: Path, name: str) -> np.ndarray:
    """Tell which test rows a row of the ledger answers rightly, ``[rows]``."""
    import numpy as np

    with np.load(folder / "predictions" / f"{name}.npz") as kept:
        logits, truth = kept["test"], kept["test_labels"]
    if truth.dtype.kind == "f":
        raise ValueError("numbers are not right or wrong")
    if truth.ndim == 2:
        every: np.ndarray = ((logits >= 0) == truth).all(axis=1)
        return every
    right: np.ndarray = logits.argmax(axis=1) == truth
    return right


def student_cells(
    results: Sequence[Result], titles: Sequence[str], metric: str | None = None
) -> list[dict[str, str]]:
    """Return the cells of the students' table by column, row by row.

    Args:
        results: The comparison's.
        titles: What the first column says, one a result.
        metric: What is told beside accuracy; None for nothing.
    """
    return [_row(result, title, metric) for result, title in zip(results, titles, strict=True)]


def student_legend(results: Sequence[Result]) -> list[str]:
    """Return the lines below the students' table."""
    lines = []
    if gains := [result.gain for result in results if result.gain is not None]:
        seeds = " and seeds" if any(gain.seeds > 1 for gain in gains) else ""
        lines.append(
            "alone: the same student without a teacher. gain: points of test accuracy over it, "
            f"with the 95% interval over test rows{seeds} (paired bootstrap, {RESAMPLES:,} "
            "resamples). of teacher: the student's test accuracy as a share of the teacher's."
        )
    unknown = [r.label for r in results if r.gain is None and r.mean("gain") is not None]
    if unknown:
        lines.append(
            f"No interval for {', '.join(unknown)}: predictions are missing, without labels, or "
            "of other rows for each seed."
        )
    return lines


def _row(result: Result, title: str, metric: str | None) -> dict[str, str]:
    def single(name: str, scale: float, digits: int) -> str:
        mean = result.mean(name)
        return "" if mean is None else f"{mean / scale:,.{digits}f}"

    return {
        "cell": title,
        "student valid.": result.spread("student_validation_accuracy"),
        "alone valid.": result.spread("alone_validation_accuracy"),
        "student test": result.spread("student_test_accuracy"),
        "alone test": result.spread("alone_test_accuracy"),
        **{
            f"{name} {split} {metric_words(metric or '')}": result.spread(f"{name}_{kept}_{metric}")
            for split, kept in (("valid.", "validation"), ("test", "test"))
            for name in STUDENTS.values()
        },
        "gain": _gain(result),
        "of teacher %": single("teacher_share", 0.01, 1),
        "student s": single("student_seconds", 1, 1),
        "alone s": single("alone_seconds", 1, 1),
        "student M tokens": single("student_tokens", 1e6, 2),
        "alone M tokens": single("alone_tokens", 1e6, 2),
    }


def _gain(result: Result) -> str:
    mean, gain = result.mean("gain"), result.gain
    if mean is None:
        return ""
    if gain is None:
        return f"{100 * mean:+.2f}"
    return f"{100 * gain.mean:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
