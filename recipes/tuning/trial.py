"""One seed of one trial, in a process of its own: a training that the study may end.

It is `recipes.run` up to the model that is measured. Nothing is printed of the test rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recipes import run
from recipes.console import Parser, say
from recipes.reading import read_recipe

#: Exit status of a training that was ended for being poor; the others are those of `recipes.run`.
POOR = 4


class _EnoughError(Exception):
    """What the trial is for has been measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed of a trial and return its exit status."""
    return run.guarded(lambda: _train(_parser().parse_intermixed_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.tuning.trial",
        description="One seed of one trial of a search, as python -m recipes.tune starts it.",
    )
    parser.add_argument("recipe", help="name or file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the recipe")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--resume", action="store_true", help="go on where it stopped")
    parser.add_argument("--to", required=True, metavar="STAGE", help="the last stage")
    parser.add_argument("--target", required=True, metavar="ROW", help="what is measured")
    parser.add_argument(
        "--judge", nargs=3, metavar=("DIR", "NUMBER", "PRUNER"),
        help="tell the study in DIR every epoch of trial NUMBER, which may end it",
    )  # fmt: skip
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help="import it")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    return parser


def _train(options: argparse.Namespace) -> int:
    from recipes.callbacks import PoorError
    from recipes.pipeline import check_folder, make_folder, run_stages

    recipe, folder = read_recipe(options.recipe, options.overrides, options.plugin), options.out
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    check_folder(recipe, Path(folder), options.resume, None)
    make_folder(Path(folder))
    work = run.workspace(recipe, Path(folder), options.offline)
    poor = None
    if options.judge is not None:
        from recipes.tuning.storage import judge

        study, number, pruner = options.judge
        poor = judge(Path(study), int(number), pruner)
    try:
        with _watching(options.target, poor, lambda: options.target in work.ledger):
            run_stages(work, None, options.to)
    except PoorError as error:
        say(f"  {error}: the study has seen better")
        return POOR
    except _EnoughError:
        pass
    return run.SHIPPED


@contextmanager
def _watching(
    target: str, poor: Callable[[int, float], bool] | None, measured: Callable[[], bool]
) -> Iterator[None]:
    """Follow the trainings inside: judge the one that counts, and begin none after it."""
    from recipes.callbacks import Judged, watchers

    def watch(title: str, metric: str) -> Any:
        if measured():
            raise _EnoughError
        return Judged(metric, poor) if title == target and poor is not None else None

    watchers.append(watch)
    try:
        yield
    finally:
        watchers.remove(watch)


def _end_with_parent() -> None:
    """End this process once its input is closed, which the system does if the parent dies."""
    os.read(0, 1)  # not through sys.stdin, whose lock would be held when the process ends
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main())
