"""What the students of a comparison came to, with their teacher and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.ledger import Ledger
from recipes.predictions import Kept, kept
from recipes.reporting.bootstrap import Gain, gain_by_headline
from recipes.reporting.summary import named

if TYPE_CHECKING:
    from recipes.reporting.comparison import Result

#: The row that has a teacher, the row that has none, and how their figures are named.
STUDENTS = {"student": "student", "student-alone": "alone"}


def student_figures(ledger: Ledger, metric: str | None = None) -> dict[str, float]:
    """Return what a run's students measured, by name; nothing if it has not finished both.

    Beside the headline metric they are told ``metric``, if one is named.

    ``gain`` is the student's headline metric on the test rows less that of the one without a
    teacher, ``teacher_share`` the student's as a share of the teacher's, fractions.
    """
    if not all(name in ledger for name in STUDENTS):
        return {}
    found: dict[str, float] = {}
    for name, short in STUDENTS.items():
        row = ledger[name]
        for told in filter(None, (row.headline, metric)):
            found[f"{short}_validation_{told}"] = row.validation[told]
            found[f"{short}_test_{told}"] = row.metrics[told]
        found[f"{short}_seconds"] = row.seconds
        if row.tokens_read:
            found[f"{short}_tokens"] = row.tokens_read
    own, alone, teacher = (ledger[name].score for name in (*STUDENTS, "teacher"))
    found["gain"] = own - alone
    if teacher > 0:  # of a teacher that explains nothing, a share means nothing
        found["teacher_share"] = own / teacher
    return found


def gain_of(folders: Sequence[Path]) -> Gain | None:
    """Return what the student gains on the one without a teacher, over rows and seeds.

    Args:
        folders: Runs of one cell, a seed each.

    Returns:
        None if predictions are missing, were kept without labels by an earlier version, or are of
        other rows for each seed.
    """
    models: dict[str, list[Kept]] = {name: [] for name in STUDENTS}
    for folder in folders:
        ledger = Ledger(folder / "ledger.json")
        for name, own in models.items():
            found = kept(folder, ledger[name]) if name in ledger else None
            if found is None:
                return None
            own.append(found)
    first, *others = (found for own in models.values() for found in own)
    if any(found.truth.tolist() != first.truth.tolist() for found in others):
        return None
    one, other = ([found.logits for found in own] for own in models.values())
    return gain_by_headline(first.problem, one, other, first.truth.tolist())


def student_cells(
    results: Sequence[Result],
    titles: Sequence[str],
    headline: str = "accuracy",
    metric: str | None = None,
) -> list[dict[str, str]]:
    """Return the cells of the students' table by column, row by row.

    Args:
        results: The comparison's.
        titles: What the first column says, one a result.
        headline: What students are judged by.
        metric: What is told beside it; None for nothing.
    """
    metrics = [name for name in (headline, metric) if name is not None]
    return [_row(result, title, metrics) for result, title in zip(results, titles, strict=True)]


def student_legend(results: Sequence[Result], headline: str = "accuracy") -> list[str]:
    """Return the lines below the students' table.

    Args:
        results: The comparison's.
        headline: What students are judged by.
    """
    lines, what = [], named(headline)
    if gains := [result.gain for result in results if result.gain is not None]:
        seeds = " and seeds" if any(gain.seeds > 1 for gain in gains) else ""
        lines.append(
            f"alone: the same student without a teacher. gain: points of test {what} over it, "
            f"with the 95% interval over test rows{seeds} (paired bootstrap, {gains[0].draws:,} "
            "resamples)."
        )
    if any(result.mean("teacher_share") is not None for result in results):
        lines.append(f"of teacher: the student's test {what} as a share of the teacher's.")
    unknown = [r.label for r in results if r.gain is None and r.mean("gain") is not None]
    if unknown:
        lines.append(
            f"No interval for {', '.join(unknown)}: predictions are missing, without labels, or "
            "of other rows for each seed."
        )
    return lines


def _row(result: Result, title: str, metrics: Sequence[str]) -> dict[str, str]:
    def single(name: str, scale: float, digits: int) -> str:
        mean = result.mean(name)
        return "" if mean is None else f"{mean / scale:,.{digits}f}"

    return {
        "cell": title,
        **{
            f"{name} {split}{f' {named(metric)}' if place else ''}": result.spread(
                f"{name}_{whole}_{metric}"
            )
            for place, metric in enumerate(metrics)
            for split, whole in (("valid.", "validation"), ("test", "test"))
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
