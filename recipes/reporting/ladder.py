"""Which forms were tried for the file that leaves, and why it is the one that it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipes.ledger import Row
from recipes.reporting import charts
from recipes.reporting.panels import Panel
from recipes.reporting.summary import called
from recipes.reporting.table import print_table
from recipes.reporting.units import megabytes, milliseconds, percent
from recipes.workspace import Workspace


@dataclass(frozen=True)
class Rung:
    """A form that was tried, in words.

    Attributes:
        step: Its name.
        cells: Accuracy, least agreement of labels, size, median time; validation rows.
        outcome: What came of it.
        chosen: Whether it is the one that leaves.
        rejected: Whether it misses the gate.
        frontier: Whether no other is at least as accurate, as small and as fast, and better in one.
    """

    step: str
    cells: list[str]
    outcome: str
    chosen: bool
    rejected: bool
    frontier: bool


def rungs(row: Row) -> list[Rung]:
    """Return the forms that were tried for a row's file; none if nothing was quantized."""
    best = frontier(row)
    return [
        Rung(
            entry["step"],
            _cells(row, entry),
            ("" if entry["held"] or entry["chosen"] else "rejected: ") + _outcome(entry),
            entry["chosen"],
            not (entry["held"] or entry["chosen"]),
            entry["step"] in best,
        )
        for entry in row.ladder
    ]


def frontier(row: Row) -> set[str]:
    """Return the steps that no other beats: more accurate, smaller or faster, and nothing worse."""
    marks = {
        entry["step"]: (-entry["metrics"][row.headline], entry["size_bytes"], time)
        for entry in row.ladder
        if (time := _time(row, entry)) is not None
    }
    return {
        step
        for step, mark in marks.items()
        if not any(
            other != mark and all(one <= two for one, two in zip(other, mark, strict=True))
            for other in marks.values()
        )
    }


def print_ladder(work: Workspace) -> None:
    """Print how the file that leaves was chosen: all forms if they were compared, else a line."""
    if "student-int8" not in work.ledger:
        return
    row = work.ledger["student-int8"]
    found = rungs(row)
    if work.recipe.export.choose == "pareto":
        heads = ("valid.", "agree", "MB", "p50 ms")
        print_table(
            [
                {
                    "form": rung.step,
                    **dict(zip(heads, map(_bare, rung.cells), strict=True)),
                    "frontier": "yes" if rung.frontier else "",
                    "": "chosen" if rung.chosen else "" if entry["held"] else "refused",
                }
                for rung, entry in zip(found, row.ladder, strict=True)
            ],
            bold=next(place for place, rung in enumerate(found) if rung.chosen),
        )
    for rung in found:
        if rung.chosen or rung.rejected:
            print(f"{rung.step}: {rung.outcome}")


def ladder_panel(row: Row) -> Panel | None:
    """Draw accuracy against latency of all forms; None if fewer than two were measured."""
    timed = [(entry, time) for entry in row.ladder if (time := _time(row, entry)) is not None]
    if len(timed) < 2:
        return None
    spots = [
        charts.Spot(
            name=row.name,
            text=f"{entry['step']} · {megabytes(entry['size_bytes'])}",
            latency=time,
            accuracy=entry["metrics"][row.headline],
            shipped=entry["chosen"],
        )
        for entry, time in timed
    ]
    best = frontier(row)
    listed = "; ".join(entry["step"] for entry, _ in timed if entry["step"] in best)
    return Panel(
        "frontier",
        f"Forms of the file: {called(row)} against latency",
        f"On validation rows. Nothing is better, smaller and faster at once than: {listed}.",
        charts.tradeoff(spots, f"validation {called(row)}, %"),
        wide=True,
    )


def _time(row: Row, entry: Mapping[str, Any]) -> float | None:
    return row.latency_ms.get(entry["step"], {}).get("p50")


def _cells(row: Row, entry: Mapping[str, Any]) -> list[str]:
    time, found = _time(row, entry), entry["agreement"]
    if time is None:
        return ["", "", "", ""]
    least = min(found["validation_labels"], found["batches_labels"])
    return [
        percent(entry["metrics"][row.headline], 2),
        percent(least, 2),
        megabytes(entry["size_bytes"]),
        milliseconds(time),
    ]


def _bare(cell: str) -> str:
    """Return a number without its unit, which stands in the table's head."""
    return cell.partition("\u00a0")[0].removesuffix("%")


def _outcome(entry: Mapping[str, Any]) -> str:
    return entry["reason"] or "it holds, and another one was chosen"
