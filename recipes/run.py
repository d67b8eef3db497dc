"""Run a recipe: labelled text in, a proven bundle out.

python -m recipes.run NAME [key=value …]
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import AdapterError
from distill.errors import DistillError
from export.console import reader_may_go
from export.errors import ExportError
from recipes.console import Parser, hush_loggers, is_main, say
from recipes.errors import RecipeError
from recipes.reading import header, read_recipe, shipped_recipes
from recipes.stages import STAGES

if TYPE_CHECKING:
    from recipes.recipe import Recipe
    from recipes.workspace import Workspace

SHIPPED, FAILED, REFUSED, WRONG = 0, 1, 2, 3
_EPILOG = """\
examples:
  python -m recipes.run lora_cls
  python -m recipes.run lora_cls data.train=my.csv data.text=review data.label=stars
  python -m recipes.run lora_cls train.epochs=2 --out runs/short
  python -m recipes.run lora_cls --to merge        # fine-tune only; --resume goes on
  python -m recipes.run lora_cls --resume
  python -m recipes.run lora_cls export.quantization=none --from quantize
  python -m recipes.run lora_cls export.quantization=auto export.choose=pareto --from quantize

exit status: 0 shipped, or done as far as --to or --dry-run asks; 2 the gate says no, or the
exported file does not answer as the student; 3 the recipe, the data or the command is wrong;
130 stopped; 1 anything else, such as a full disk: what was finished is kept
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(_parser().parse_intermixed_args(arguments)))


def guarded(command: Callable[[], int]) -> int:
    """Run a command on a recipe and turn what ends it into one line and an exit status."""
    hush_loggers()
    try:
        return command()
    except (RecipeError, AdapterError, DistillError, ExportError) as error:
        from export.parity import ParityError

        full = _full_disk(error)
        print(f"error: {full or error}", file=sys.stderr)
        if full:
            return FAILED
        return REFUSED if isinstance(error, ParityError) else WRONG
    except KeyboardInterrupt:
        print("stopped; go on with --resume", file=sys.stderr)
        return 130
    except Exception as error:
        full, wrong = _full_disk(error) or _no_memory(error), _out_of_reach(error)
        if not full and not wrong:
            raise
        print(f"error: {full or wrong}", file=sys.stderr)
        return FAILED if full else WRONG


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.run",
        description="Fine-tune, merge, distil, export, quantize, prove and pack, by a recipe.",
        epilog=_EPILOG,
    )
    stages = [stage.name for stage in STAGES]
    parser.add_argument("recipe", nargs="?", help="a shipped recipe's name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the recipe")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on where the run stopped")
    parser.add_argument(
        "--from", dest="stage", choices=stages, metavar="STAGE",
        help=f"do this stage and all after it anew: {', '.join(stages)}",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=stages, metavar="STAGE",
        help="stop after this stage; --resume goes on from there",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", dest="plan", action="store_true",
        help="check recipe, data and backbone; print the plan",
    )  # fmt: skip
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers strategies or others; repeatable",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use what is cached, fetch nothing")
    parser.add_argument("--list", action="store_true", help="list the shipped recipes")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.list:
        with reader_may_go():
            for name, path in shipped_recipes().items():
                print(f"{name}  {header(path)}")
        return SHIPPED
    if options.recipe is None:
        raise RecipeError("No recipe is named. Try python -m recipes.run --list.")
    if options.resume and options.stage:
        raise RecipeError("--resume and --from exclude each other: --from goes on from its stage.")
    _check_order(options.stage, options.to)
    recipe = read_recipe(options.recipe, options.overrides, options.plugin)
    folder = Path(options.out or Path("runs") / Path(options.recipe).stem)
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from recipes.pipeline import check_folder, check_place, make_folder, to_do

    if options.plan:
        from recipes.plan import print_plan

        # A plan to begin with may be made beside a run that is there.
        if options.resume or options.stage:
            check_folder(recipe, folder, options.resume, options.stage)
        stages = to_do(folder, options.resume, options.stage, options.to)
        check_place(folder)
        work = workspace(recipe, folder, options.offline)
        with reader_may_go():
            print_plan(work, stages)
        return SHIPPED
    if is_main():
        check_folder(recipe, folder, options.resume, options.stage)
        make_folder(folder)
    work = workspace(recipe, folder, options.offline)
    if options.to and options.to != STAGES[-1].name:
        return _stop_early(work, options.stage, options.to)
    return _ship(work, options.stage)


def _check_order(first: str | None, last: str | None) -> None:
    """Refuse to begin after the stage at which to stop."""
    names = [stage.name for stage in STAGES]
    if first and last and names.index(first) > names.index(last):
        raise RecipeError(
            f"--from {first} comes after --to {last}: nothing would be done. The stages are "
            f"{', '.join(names)}."
        )


def workspace(recipe: Recipe, folder: Path, offline: bool) -> Workspace:
    """Load the heavy libraries, look at the machine and join the other processes."""
    from recipes import distributed
    from recipes.console import hush
    from recipes.workspace import Workspace, machine

    hush()
    hardware = machine(recipe)
    distributed.start(hardware.device)
    distributed.wait()
    return Workspace(recipe, folder, hardware, offline)


def _ship(work: Workspace, from_stage: str | None) -> int:
    """Run the stages, print the ledger and say whether the model may leave."""
    from recipes.gate import verdict
    from recipes.pipeline import run_stages
    from recipes.reporting.ladder import print_ladder
    from recipes.reporting.report import write_report
    from recipes.reporting.table import print_ledger

    start = time.perf_counter()
    run_stages(work, from_stage)
    if not is_main():
        return SHIPPED
    reasons = verdict(work)
    with reader_may_go():
        print_ledger(work.ledger)
        print_ladder(work)
    write_report(work, reasons)
    say(f"report: {work.folder / 'report.html'}")
    if reasons:
        last = f"The gate says no: {'; '.join(reasons)}. Everything is kept in {work.folder}."
    else:
        last = f"Shipped {work.folder / 'bundle'} after {time.perf_counter() - start:.0f} s."
    with reader_may_go():
        print(last)
    return REFUSED if reasons else SHIPPED


def _stop_early(work: Workspace, from_stage: str | None, to_stage: str) -> int:
    """Run the stages up to one of them, print the ledger so far and say how to go on."""
    from recipes.pipeline import run_stages
    from recipes.reporting.table import print_ledger

    run_stages(work, from_stage, to_stage)
    if is_main():
        with reader_may_go():
            print_ledger(work.ledger)
            print(
                f"Stopped after {to_stage}, as --to asks. Go on in {work.folder} with --resume, "
                "without --to."
            )
    return SHIPPED


def _full_disk(error: BaseException) -> str | None:
    """Return a message if the disk is full, however the library that noticed it put it."""
    seen: BaseException | None = error
    while seen is not None:
        number = getattr(seen, "errno", None)
        # PyTorch's writer only says that it stands at another place of the file than it should.
        if number in (errno.ENOSPC, errno.EDQUOT) or re.search(
            r"No space left|unexpected pos \d+ vs \d+|PytorchStreamWriter failed", str(seen)
        ):
            return (
                f"The disk is full ({' '.join(str(seen).split())[:200]}). Free some space and go "
                "on with --resume, or write to another disk with --out. What was finished is kept."
            )
        seen = seen.__cause__ or seen.__context__
    return None


def _out_of_reach(error: BaseException) -> str | None:
    """Return a message for files that are not there or not to be used."""
    if isinstance(error, FileNotFoundError):
        return (
            f"{error.filename} is missing. Put it back; if it belongs to the run, the stage that "
            "makes it can be done anew (--from STAGE)."
        )
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return f"Not allowed: {error}. Choose another folder with --out, or mend its rights."
    return None


def _no_memory(error: BaseException) -> str | None:
    """Return a message if memory has run out."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return (
            f"Out of memory ({str(error).partition('. ')[0]}). Lower train.batch_size or "
            "data.max_length, and go on with --resume or --from."
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
