from __future__ import annotations
from recipes.workspace import Workspace


def write_report(work: Workspace, reasons: list[str]) -> None:
    """Stub."""
