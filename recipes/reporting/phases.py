"""Runs that learn phase after phase: what the report and the model card say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.reporting import phase_charts
from recipes.reporting.panels import Panel
from recipes.reporting.summary import found_phases, known_phases
from recipes.reporting.units import apart, one_line, percent, points
from recipes.tasks import Split
from recipes.tasks.wording import counted, listed
from recipes.workspace import Workspace

#: What stands where nothing is known.
_NOTHING = "\u2013"


@dataclass(frozen=True)
class PhasesPart:
    """The part of the report about phases.

    Attributes:
        takeaway: What they came to.
        panels: The matrix, and how well each phase is known over time.
        heading: Titles of the table's columns.
        table: Title and cells of each row: the numbers that the charts show.
    """

    takeaway: str
    panels: Sequence[Panel]
    heading: Sequence[str]
    table: Sequence[tuple[str, Sequence[str]]]


def phases_part(work: Workspace) -> PhasesPart | None:
    """Return the part of the report about phases; None for a run without."""
    found = found_phases(work.ledger, "teacher")
    if not found:
        return None
    matrix, names = found["matrix"], _titles(found["names"])
    joint = found_phases(work.ledger, "joint")
    early = _known_early(work, found["labels"])
    wide = phase_charts.is_wide(len(names))
    heat = Panel(
        "phase_matrix",
        "Accuracy by phase, after each phase",
        f"{_worst(matrix, names)} Dashed: phases that are still to come"
        f"{', and what is right of them already' if any(map(any, early)) else ''}.",
        phase_charts.phase_matrix(matrix, names, early, joint["matrix"][0]),
        wide=wide,
    )
    lines = Panel(
        "phase_lines",
        "What is kept over time",
        "Each phase from when it was learnt on; the average is that of the phases so far.",
        phase_charts.phase_lines(matrix, names, joint["average_accuracy"]),
        wide=wide,
    )
    table = [
        (f"after {name}", _cells(row, phase, early[phase]))
        for phase, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
    table.append(("joint", _cells(joint["matrix"][0], len(names) - 1)))
    return PhasesPart(_takeaway(work), [heat, lines], [*names, "average so far"], table)


def phases_table(work: Workspace, shipped: str) -> list[Sequence[str]]:
    """Return a row for each phase, for the model card; nothing for a run without.

    Args:
        work: A finished run.
        shipped: Name of the row whose file leaves.

    Returns:
        Name, labels that were new, test rows, and three accuracies on them: of the teacher right
        after the phase, of the teacher at the end, of the shipped file.
    """
    if not (found := found_phases(work.ledger, "teacher")):
        return []
    test: Split = work.rows.test
    right = work.logits(shipped)["test"].argmax(axis=1) == test.labels
    hits = Counter(phase for phase, hit in zip(test.phases, right, strict=True) if hit)
    rows = Counter(test.phases)
    return [
        (
            f"{number + 1} {phase['name']}",
            ", ".join(phase["labels"]) or "none",
            f"{rows[number]:,}",
            percent(found["matrix"][number][number]),
            percent(found["matrix"][-1][number]),
            percent(hits[number] / rows[number]),
        )
        for number, phase in enumerate(known_phases(work.ledger))
    ]


def _titles(names: Sequence[str]) -> list[str]:
    return [f"{number} {one_line(name, 40)}" for number, name in enumerate(names, start=1)]


def _takeaway(work: Workspace) -> str:
    found = work.ledger["teacher"].phases
    joint = found_phases(work.ledger, "joint")["average_accuracy"]
    gained, kept = found["forward_transfer"], found["rehearsed_rows"]
    transfer = (
        "not defined: every phase brings new labels"
        if gained is None
        else f"{points(gained)} on a phase before it is learnt, against a model that has learnt "
        "nothing"
    )
    rows = len(work.rows.train)
    memory = (
        f"at most {counted(kept, 'row')} of earlier phases at once, {percent(kept / rows)} of the "
        "training rows"
        if kept
        else "no rows of earlier phases"
    )
    return (
        f"After all {counted(len(found['names']), 'phase')} the teacher is right on "
        f"{percent(found['average_accuracy'])} of a phase's test rows, on average; joint, which "
        f"learnt all rows at once, on {percent(joint)}. "
        f"Forgetting: {apart(found['forgetting'])} since each earlier phase was known best. "
        f"Forward transfer: {transfer}. Kept: {memory}."
    )


def _worst(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> str:
    """Name the phases of which most has been forgotten."""
    last = len(names) - 1
    best = [max(matrix[i][j] for i in range(j, last)) for j in range(last)]
    lost = [before - matrix[last][j] for j, before in enumerate(best)]
    most = max(lost)
    if most <= 0:
        return "No phase is known less well at the end than before."
    worst = listed(names[j] for j in range(last) if lost[j] == most)
    return f"Most is lost of {worst}: {apart(most)} from its best to the end."


def _known_early(work: Workspace, labels: Sequence[Sequence[str]]) -> list[list[bool]]:
    """Tell after which phases some rows of a phase that is still to come could be right."""
    test: Split = work.rows.test
    lowest = [
        min(label for label, at in zip(test.labels, test.phases, strict=True) if at == phase)
        for phase in range(len(labels))
    ]
    return [
        [phase > now and low < len(known) for phase, low in enumerate(lowest)]
        for now, known in enumerate(labels)
    ]


def _cells(row: Sequence[float], now: int, early: Sequence[bool] = ()) -> list[str]:
    """Write a row of the matrix; in parentheses what is right before it is learnt."""
    cells = [percent(value) for value in row[: now + 1]]
    ahead = zip(row[now + 1 :], early[now + 1 :], strict=True)
    cells += [f"({percent(value)})" if known else _NOTHING for value, known in ahead]
    return [*cells, percent(sum(row[: now + 1]) / (now + 1))]
