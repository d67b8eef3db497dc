"""What a person types and reads: the command line's parser, and one line a step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from adapters.errors import AdapterError
from distill.errors import DistillError
from export import console
from recipes.errors import RecipeError

if TYPE_CHECKING:
    from rich.progress import Progress


class Parser(console.Parser):
    """The parser of the commands on recipes."""

    wrong: ClassVar[type[Exception]] = RecipeError


def guarded(command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command and turn what ends it into one line and an exit status.

    Args:
        command: Returns its exit status.
        stopped: What to say to a person who stops it.

    Returns:
        That status; 3 if the recipe, the data or the command is wrong; 130 if it was stopped.
    """
    hush_loggers()

    def told() -> int:
        try:
            return command()
        except (RecipeError, AdapterError, DistillError) as error:
            print(f"error: {error}", file=sys.stderr)
            return console.WRONG

    return console.guarded(told, stopped)


def is_main() -> bool:
    """Tell whether this process writes: it is the only one, or the first of a torchrun."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """Print a line on standard error, from the first process only."""
    if is_main():
        print(message, file=sys.stderr, flush=True)


def runs_bar() -> Progress:
    """Return a bar of runs on standard error, drawn on a terminal only; lines go above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip


def print_above(bar: Progress, line: str) -> None:
    """Print a line above a bar, as it is."""
    bar.console.print(line, markup=False, highlight=False, soft_wrap=True)


def hush_loggers() -> None:
    """Do the part of `hush` that imports nothing: some libraries talk while they are imported."""
    import logging

    for name in ("bitsandbytes", "torch.onnx", "onnxscript", "onnx_ir", "httpx", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def hush() -> None:
    """Keep libraries from talking over the run: they report what we check and say ourselves."""
    import warnings

    import transformers

    hush_loggers()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
