"""The ledger as a table for a person."""

from __future__ import annotations

from recipes.ledger import Ledger, Row

#: The row that others are held against.
TEACHER = "teacher"


def print_ledger(ledger: Ledger) -> None:
    """Print every row with its difference from the row before and from the teacher."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("row", no_wrap=True)
    for name in (
        "valid.", "test", "± before", "± teacher", "macro F1", "prec.", "recall", "MB", "params M",
        "p50 ms", "p95 ms", "agree", "s",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for cells in ledger_cells(ledger):
        table.add_row(*cells)
    Console(width=max(120, Console().width)).print(table)


def ledger_cells(ledger: Ledger) -> list[list[str]]:
    """Return the table's cells, row by row: accuracies in percent, differences in points."""
    cells = []
    before: Row | None = None
    teacher = next((row for row in ledger if row.name == TEACHER), None)
    for row in ledger:
        times = row.latency_ms.get("batch_1", {})
        cells.append(
            [
                row.name,
                f"{100 * row.validation['accuracy']:.2f}",
                f"{100 * row.metrics['accuracy']:.2f}",
                _difference(row, before),
                _difference(row, teacher),
                f"{100 * row.metrics['macro_f1']:.2f}",
                f"{100 * row.metrics['precision']:.2f}",
                f"{100 * row.metrics['recall']:.2f}",
                f"{row.size_bytes / 1e6:.1f}",
                f"{row.parameters / 1e6:.2f}",
                f"{times['p50']:.2f}" if times else "",
                f"{times['p95']:.2f}" if times else "",
                f"{100 * row.agreement['labels']:.2f}" if row.agreement else "",
                f"{row.seconds:.1f}",
            ]
        )
        before = row
    return cells


def _difference(row: Row, other: Row | None) -> str:
    if other is None or other.name == row.name:
        return ""
    return f"{100 * (row.metrics['accuracy'] - other.metrics['accuracy']):+.2f}"
