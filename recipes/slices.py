"""How a model does on parts of the test rows: by length, by label, and by columns of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recipes.problems.resampling import interval, share_interval
from recipes.tasks.slices import groups
from recipes.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

#: What is always looked at; a column of the data may have the same name.
LENGTH, LABEL = "length in tokens", "true label"
_DRAWS = 1_000
#: Rows of which draws tell what others would do: of one row each draw is the same.
_ENOUGH = 20


def sliced(work: Workspace, logits: np.ndarray, teacher: np.ndarray) -> list[dict[str, Any]]:
    """Judge a model on parts of the test rows.

    Args:
        work: The run.
        logits: Its logits on the test rows ``[rows, outputs]``, moved by its decision.
        teacher: The teacher's.

    Returns:
        For each part ``slice`` (what it is cut by), ``value``, ``rows``, the headline metric and,
        where it has rows of several labels, ``macro_f1``, each with the ends of its 95% interval
        where it is known: of few rows only for shares of rows; and ``teacher``, the headline of the
        teacher. The worst of a slice come first.
    """
    import numpy as np

    found: list[dict[str, Any]] = []
    truth, headline = work.rows.test.labels, work.problem.headline
    for name, parts in _cuts(work):
        entries = []
        for value, rows in parts:
            own, labels = logits[rows], [truth[row] for row in rows]
            scores = work.problem.metrics(own, labels)
            drawn = work.problem.resampled([own], labels, _DRAWS)
            several = len(np.unique(labels, axis=0)) > 1
            few = len(rows) < _ENOUGH
            ends = {figure: [] if few else interval(values[0]) for figure, values in drawn.items()}
            if headline == "accuracy":
                # Of few rows, or of rows that are all right, a draw does not tell what others do.
                ends[headline] = share_interval(scores[headline], len(rows))
            kept = {f: [scores[f], *ends[f]] for f in ends if f == headline or several}
            judged = work.problem.metrics(teacher[rows], labels)[headline]
            fields = {"slice": name, "value": value, "rows": len(rows), **kept, "teacher": judged}
            entries.append((scores[headline], fields))
        found += [fields for _, fields in sorted(entries, key=lambda entry: entry[0])]
    return found


def _cuts(work: Workspace) -> Iterator[tuple[str, list[tuple[str, list[int]]]]]:
    """Yield what the test rows are cut by, and the parts that this gives."""
    test = work.rows.test
    examples = work.task.features(test, work.tokenizer, work.max_length)
    yield LENGTH, groups([str(len(example["input_ids"])) for example in examples])
    if work.rows.problem == "multi_label":
        columns = zip(work.rows.labels, zip(*test.labels, strict=True), strict=True)
        parts = [(label, [r for r, one in enumerate(there) if one]) for label, there in columns]
        yield LABEL, [(label, rows) for label, rows in parts if rows]
    elif work.rows.problem != "regression":
        named = [(label, [r for r, one in enumerate(test.labels) if one == number])
                 for number, label in enumerate(work.rows.labels)]  # fmt: skip
        yield LABEL, [(label, rows) for label, rows in named if rows]
    for column, values in test.slices.items():
        yield column, groups(values)
