"""Several processes on one run, as torchrun or accelerate launch start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from recipes.console import is_main

#: How long a process waits for the others: the first one does whole stages alone.
_PATIENCE = timedelta(hours=24)


def start(device: str) -> None:
    """Join the other processes, if there are any.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """
    if _processes() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=_PATIENCE)


def wait() -> None:
    """Wait until every process is here."""
    if _processes() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """Let the first process through the block alone, then the others."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
