"""Search a recipe's keys for the best validation metric.

python -m recipes.tune NAME key=A,B 'key=log(low,high)' …
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from export.console import count
from recipes.console import Parser, guarded, print_above, runs_bar, say
from recipes.errors import RecipeError
from recipes.tuning.plan import Plan, make_plan
from recipes.tuning.space import read_space
from recipes.tuning.storage import PRUNERS

SEARCHED, FAILED = 0, 1
_EPILOG = """\
What varies is written like an override, with several values or a range; all other overrides hold
for every trial:
  key=A,B,C                  one of these; numbers are taken as ordered
  'key=log(low,high)'        a number by its magnitude, such as a learning rate
  'key=uniform(low,high)'    a number; float(low,high) is the same
  'key=int(low,high)'        a whole number; int(low,high,step) in steps
  'key=logint(low,high)'     a whole number by its magnitude
(A shell wants quotes around parentheses.)

examples:
  python -m recipes.tune lora_cls 'train.learning_rate=log(1e-5,1e-2)' strategy.rank=4,8,16,32
  python -m recipes.tune lora_cls 'train.epochs=int(2,6)' data.train=my.csv --trials 40 --workers 2
  python -m recipes.tune lora_cls 'distill.train.learning_rate=log(5e-5,1e-3)' \\
      "distill.objectives=[kl],[kl, hidden],[kl, hidden, ce]" --trials 12 --seeds 0,1
  python -m recipes.tune lora_cls 'train.learning_rate=log(1e-4,1e-2)' --timeout 2h
  python -m recipes.run runs/tune-lora_cls/best.yaml --out runs/tuned

Trials are measured by the validation metric that the recipe names (train.metric), and nothing is
chosen by test rows. The teacher is fine-tuned in each of them; with a key of distill.* or merge.*
the student is trained too, and its metric counts (distill.train.metric). The first trial is the
recipe as it stands. A space with no more points than trials, the recipe as it stands on
top if it is none of them, is tried in full. Trials start from
the baselines, or the teacher, of a finished one where those would be the same.

The same command again goes on where it stopped, with more --trials or another --timeout if you
like. While it runs, the same command with --resume joins it from another shell; give both their
part of the cores (threads=N).

exit status: 0 searched; 1 no trial could be trained to its end; 3 the recipe, the data or the
command is wrong; 130 stopped
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    stopped = "stopped; the same command goes on from here"
    return guarded(lambda: _tune(_parser().parse_intermixed_args(arguments)), stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.tune",
        description="Search a recipe's keys for the best validation metric.",
        epilog=_EPILOG,
    )
    parser.add_argument("recipe", nargs="?", help="a shipped recipe's name, or a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=…", help="what varies, and what holds for every trial"
    )
    parser.add_argument(
        "--trials", type=count, default=20, metavar="N",
        help="trials of the whole study, those before included (default: 20)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_duration, metavar="TIME",
        help="begin no further trial after so many seconds, or 90m, or 2h",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N",
        help="trials at a time, which share the processor's cores (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", metavar="0,1,2",
        help="train each trial with each seed and take the mean (default: the recipe's seed)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the search itself (default: 0)")
    parser.add_argument(
        "--pruner", choices=PRUNERS,
        help="end a trial after an epoch in which it is below the median of the others (default), "
        "by successive halving, or never (always so where data arrive in phases)",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", help="the search's folder (default: runs/tune-NAME)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="join a search that is running, or go on with it"
    )
    parser.add_argument("--dry-run", dest="plan", action="store_true", help="print the space")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers strategies or others; repeatable",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use what is cached, fetch nothing")
    return parser


def _duration(text: str) -> float:
    """Read a time such as ``600``, ``90m`` or ``2h``, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 600, 90m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _tune(options: argparse.Namespace) -> int:
    if options.recipe is None:
        raise RecipeError("No recipe is named. Try python -m recipes.run --list.")
    if options.seed < 0:
        raise RecipeError(f"--seed {options.seed} is wrong: write a whole number from 0 up.")
    space, fixed = read_space(options.overrides)
    plan = make_plan(
        options.recipe, space, fixed,
        plugins=options.plugin, seeds=_seeds(options.seeds), seed=options.seed,
        pruner=options.pruner,
    )  # fmt: skip
    folder = Path(options.out or Path("runs") / f"tune-{Path(options.recipe).stem}")
    if options.plan:
        _print_plan(plan, options, folder)
        return SEARCHED
    return _search(plan, options, folder)


def _seeds(text: str | None) -> list[int]:
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise RecipeError(f"--seeds {text} is wrong: write different whole numbers, --seeds 0,1,2.")
    return [int(part) for part in parts]


def _search(plan: Plan, options: argparse.Namespace, folder: Path) -> int:
    from recipes.reporting.search import print_search, write_search
    from recipes.tuning.crew import Crew
    from recipes.tuning.study import Study, is_search

    if options.resume and not is_search(folder):
        raise RecipeError(
            f"There is no search in {folder} to go on with. Leave out --resume, or name the "
            "search's folder with --out."
        )
    study = Study(folder, plan)
    with _present(folder, join=options.resume), runs_bar() as bar:
        task = bar.add_task("trials", total=options.trials)

        def tell(line: str) -> None:
            print_above(bar, line)
            done = sum(trial.state != "running" for trial in study.trials)
            bar.update(task, completed=done, refresh=True)

        Crew(
            study,
            workers=options.workers,
            budget=options.trials,
            deadline=None if options.timeout is None else time.monotonic() + options.timeout,
            offline=options.offline,
            tell=tell,
        ).run()
    written = write_search(study)
    print_search(study)
    say(f"written: {', '.join(map(str, written))}")
    return SEARCHED if study.best is not None else FAILED


@contextmanager
def _present(folder: Path, *, join: bool) -> Iterator[None]:
    """Hold the place of the one command that needs no --resume to work on a search.

    Raises:
        RecipeError: Another one has it, and this one is not to join.
    """
    lock = FileLock(folder / "command.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not join:
            raise RecipeError(
                f"Another process works on the search in {folder}. Join it with --resume, wait "
                "for it, or search elsewhere (--out DIR)."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _print_plan(plan: Plan, options: argparse.Namespace, folder: Path) -> None:
    print(f"folder  {folder}")
    first = "the first is the plain recipe, whether its own values are in the space or not"
    print(f"trials  {options.trials}, {options.workers} at a time; {first}")
    metric = plan.metric or "headline metric of the data's problem"
    print(f"counts  the {plan.target}'s validation {metric}, each trial to {plan.stage}")
    print(f"seeds   {', '.join(map(str, plan.seeds))}")
    if plan.fixed:
        print(f"all     {' '.join(plan.fixed)}")
    width = max(len(dimension.said) for dimension in plan.space)
    for dimension in plan.space:
        own = plan.inside.get(dimension.key)
        told = "not in it" if own is None else dimension.text(own)
        print(f"space   {dimension.said:<{width}}  the recipe's own value: {told}")
    if plan.count <= options.trials:
        tried = "each is tried once"
        if plan.whole > options.trials:
            tried = f"with --trials {plan.whole:.0f}, the plain recipe on top, each is tried once"
        print(f"points  {plan.count:.0f} in the space: {tried}")


if __name__ == "__main__":
    # Ended politely, it stops its trials too instead of leaving them behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
