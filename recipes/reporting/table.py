"""The ledger as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recipes.ledger import Ledger, Row
from recipes.reporting.summary import named, phases_line

#: The row that others are held against.
TEACHER = "teacher"
#: What fits a terminal; the report shows all columns.
_TERMINAL = (
    "row", "valid.", "test", "test 95%", "± before", "± 95%", "± teacher", "macro F1", "MB",
    "params M", "p50 ms", "p95 ms", "agree", "s",
)  # fmt: skip


def print_ledger(ledger: Ledger) -> None:
    """Print every row with its difference from the row before and from the teacher.

    Below stands by which metric, and what learning phase after phase came to, if there are phases.
    """
    cells = ledger_cells(ledger)
    filled = [name for name in _TERMINAL if any(row[name] for row in cells)]
    print_table([{name: row[name] for name in filled} for row in cells])
    metrics = dict.fromkeys(named(row.headline) for row in ledger)
    print(f"valid. and test: {', '.join(metrics)}, in percent; ±: points of it.")
    if line := phases_line(ledger):
        print(line)


def print_table(rows: Sequence[Mapping[str, str]], bold: int | None = None) -> None:
    """Print a table on standard output.

    Args:
        rows: Cells by column; the first column is set to the left, all others to the right.
        bold: Place of a row that stands out.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(*map(Text, row.values()), style="bold" if place == bold else None)
    # In a log or a narrow window a long line is better than a table with holes.
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def ledger_cells(ledger: Ledger) -> list[dict[str, str]]:
    """Return the table's cells by column, row by row.

    Scores are in percent, differences in points of the headline metric on the test rows, ``agree``
    is the share of test rows with the answer of the row before; ``95%`` are intervals from a
    bootstrap. What is not known is empty.
    """
    teacher = next((row for row in ledger if row.name == TEACHER), None)
    cells = []
    for row in ledger:
        before = row_before(ledger, row)
        latency = row.latency_ms.get("batch_1", {})
        cells.append(
            {
                "row": row.name,
                "stage": row.stage,
                "valid.": _percent(row.validation.get(row.headline)),
                "test": _percent(row.metrics.get(row.headline)),
                "test 95%": _between(row.intervals.get(row.headline, ()), ""),
                "± before": _difference(row, before),
                "± 95%": _between(_drawn(row, before), "+"),
                "± teacher": _difference(row, teacher),
                "macro F1": _percent(row.metrics.get("macro_f1")),
                "MB": f"{row.size_bytes / 1e6:.1f}",
                "params M": f"{row.parameters / 1e6:.2f}",
                "learnt M": f"{row.trainable_parameters / 1e6:.2f}",
                "p50 ms": _number(latency.get("p50")),
                "p95 ms": _number(latency.get("p95")),
                "before": before.name if before else "",
                "agree": _percent(row.agreement.get("labels")),
                "max shift": _percent(row.agreement.get("max_probability_shift")),
                "s": f"{row.seconds:.1f}",
            }
        )
    return cells


def row_before(ledger: Ledger, row: Row) -> Row | None:
    """Return the row whose artefact this one was compared with, else the one above it, if any."""
    if row.agreement and row.agreement["with"] in ledger:
        return ledger[row.agreement["with"]]
    above = ledger.above(row.name)
    return None if above is None else ledger[above]


def _drawn(row: Row, before: Row | None) -> Sequence[float]:
    """Return both ends of the interval of a row's difference from another one; empty if unknown."""
    for found in row.differences:
        if before is not None and found["from"] == before.name:
            ends: Sequence[float] = found[row.headline][1:]
            return ends
    return ()


def _between(ends: Sequence[float], sign: str) -> str:
    return " to ".join(f"{100 * end:{sign}.1f}" for end in ends)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{2 if value >= 0.1 else 3}f}"


def _difference(row: Row, other: Row | None) -> str:
    if other is None or other.name == row.name or not (row.metrics and other.metrics):
        return ""
    return f"{100 * (row.score - other.score):+.2f}"
