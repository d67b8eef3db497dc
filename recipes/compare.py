"""Fine-tune several variants of a recipe on the same rows and seeds, and put them side by side.

python -m recipes.compare NAME key=A,B … [--variant "key=value …"]
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recipes.cells import Cell, check_cells, make_cells
from recipes.child import Run
from recipes.console import Parser, guarded, print_above, runs_bar, say
from recipes.errors import RecipeError
from recipes.ledger import Row
from recipes.pipeline import RECIPE
from recipes.reading import differences, plain
from recipes.recipe import Recipe
from recipes.reporting.bootstrap import Gain
from recipes.reporting.comparison import (
    Comparison,
    Outcome,
    Result,
    baselines,
    figures,
    print_comparison,
    scores,
    write_comparison,
    written,
)
from recipes.reporting.comparison_classes import rarest
from recipes.reporting.comparison_students import gain_of
from recipes.reporting.learning_curve import curve_figures
from recipes.reporting.summary import named
from recipes.reuse import TEACHER
from recipes.stages import STAGES, first_reader

COMPARED, FAILED = 0, 1
#: Stages after which runs may stop.
_ENDS = ("finetune", "merge", "distill")
_EPILOG = """\
An override with several values is an axis, and the cells are the product of the axes; commas in
brackets or quotes do not count. Each --variant adds one cell written by hand; without an axis the
variants are the only cells, and --variant "" is the recipe as it stands; within one, an override
that holds blanks takes quotes of its own. All other overrides hold for every cell. Every cell runs
once with each seed, on the same split.

examples:
  python -m recipes.compare lora_cls strategy.name=lora,dora,bottleneck,bitfit --seeds 0,1,2
  python -m recipes.compare lora_cls strategy.rank=4,8,16 train.learning_rate=1e-3,3e-4
  python -m recipes.compare lora_cls "strategy={name: lora, rank: 8},{name: ia3}" train.epochs=3
  python -m recipes.compare lora_cls distill.student.layers=2,3 --to distill --seeds 0,1,2
  python -m recipes.compare lora_cls data.fraction=0.05,0.1,0.25,0.5,1 --seeds 0,1,2
  python -m recipes.compare lora_cls --to distill --variant "" \\
      --variant "'distill.objectives=[{name: kl, temperature: 4.0}, ce]' distill.train.epochs=3"
  python -m recipes.compare lora_cls strategy.name=lora,dora \\
      --variant "strategy.name=full backbone.quantization=none train.learning_rate=2e-4"
  python -m recipes.compare imbalanced_cls --to finetune --variant "" \\
      --variant train.class_weights=balanced --variant train.resample=sqrt

The best cell is the one whose validation metric is best: what train.metric says (with --to
distill, distill.train.metric), else what the data's problem is judged by: accuracy, micro F1 where
a text may have several labels, r2 (explained variance) for numbers.

Where cells learn from different numbers of rows (data.fraction, data.per_class), a learning curve
is drawn as well; the test rows are the same in every cell.

With --to distill each run trains its students too, and the gain of the student over the one
without a teacher is told with its interval. A run that differs from a finished one only in how its
students learn starts from that one's teacher; one with the same rows and backbone, from its
baselines.

The same command again goes on where it stopped, and uses what is finished.

exit status: 0 compared; 1 a run failed (the others are compared); 3 the recipe, the data or the
command is wrong; 130 stopped
"""

_DISAGREE = "The cells choose by different metrics (metric): the best is marked by {}."
_OTHERS = (
    "The cells have different kinds of answers and are judged by different metrics ({}): only the "
    "first is told, and none is the best."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    stopped = "stopped; the same command goes on from here"
    return guarded(lambda: _compare(_parser().parse_intermixed_args(arguments)), stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.compare",
        description="Fine-tune variants of a recipe and put them side by side.",
        epilog=_EPILOG,
    )
    parser.add_argument("recipe", nargs="?", help="a shipped recipe's name, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=A,B", help="laid over the recipe")
    parser.add_argument(
        "--variant", action="append", default=[], metavar='"key=value …"',
        help="one more cell with these overrides; repeatable",
    )  # fmt: skip
    parser.add_argument("--seeds", default="0", metavar="0,1,2", help="(default: 0)")
    parser.add_argument(
        "--out", metavar="DIR", help="the comparison's folder (default: runs/compare-NAME)"
    )
    parser.add_argument(
        "--to", choices=_ENDS, default="merge",
        help="how far each run goes (default: merge, which measures the drift of merging); distill "
        "compares the students",
    )  # fmt: skip
    parser.add_argument("--dry-run", dest="plan", action="store_true", help="print the cells")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers strategies or others; repeatable",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use what is cached, fetch nothing")
    return parser


def _compare(options: argparse.Namespace) -> int:
    if options.recipe is None:
        raise RecipeError("No recipe is named. Try python -m recipes.run --list.")
    name = Path(options.recipe).stem
    folder = Path(options.out or Path("runs") / f"compare-{name}")
    runs = _planned(options, folder)
    if options.plan:
        _print_plan(runs, options.to, folder)
        return COMPARED
    faults = _run_all(runs, options)
    comparison = _gather(name, runs, faults, folder, options.to)
    print_comparison(comparison)
    files = write_comparison(comparison, folder)
    say(f"written: {', '.join(map(str, files))}")
    return FAILED if faults else COMPARED


def _planned(options: argparse.Namespace, folder: Path) -> list[Run]:
    """Return every run, checked as far as is possible without reading the data."""
    seeds = _seeds(options.seeds)
    said = [*options.overrides, *(word for text in options.variant for word in text.split())]
    if any(word.startswith("seed=") for word in said):
        raise RecipeError("The seed is the same for all cells: name it with --seeds 0,1,2.")
    if (folder / RECIPE).exists():
        raise RecipeError(f"{folder} holds a run. Compare elsewhere (--out DIR).")
    cells = make_cells(options.recipe, options.overrides, options.variant)
    recipes = check_cells(options.recipe, cells, seeds, options.plugin)
    _check_measured([recipes[cell.label, seeds[0]] for cell in cells], cells, options.to)
    runs = [
        Run(cell, seed, recipes[cell.label, seed], folder / cell.folder / f"seed-{seed}")
        for cell in cells
        for seed in seeds
    ]
    for run in runs:
        run.check_folder()
    return runs


def _check_measured(recipes: Sequence[Recipe], cells: Sequence[Cell], stage: str) -> None:
    """Refuse two cells that differ only in what comes after the stage at which runs stop."""
    names = [one.name for one in STAGES]
    for place, recipe in enumerate(recipes):
        for other in range(place):
            keys = differences(plain(recipes[other]), plain(recipe))
            first = min(map(first_reader, keys))
            if first > names.index(stage):
                raise RecipeError(
                    f"The cells {cells[other].label} and {cells[place].label} differ in "
                    f"{', '.join(keys)}, which the stage {names[first]} is the first to read, and "
                    f"runs stop after {stage}. "
                    + (
                        f"Compare with --to {names[first]}."
                        if names[first] in _ENDS
                        else "Nothing that is compared depends on it."
                    )
                )


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"--seeds {text} is wrong: write whole numbers, --seeds 0,1,2.") from None
    if len(set(seeds)) < len(seeds):
        raise RecipeError(f"--seeds {text} names a seed twice.")
    return seeds


def _print_plan(runs: Sequence[Run], stage: str, folder: Path) -> None:
    cells = list(dict.fromkeys(run.cell for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    done = sum(run.is_finished(stage) for run in runs)
    print(f"folder  {folder}")
    print(f"runs    {len(runs)}, each to {stage}; {done} finished before")
    print(f"seeds   {', '.join(map(str, seeds))}")
    shared = [override for override in cells[0].overrides if override not in cells[0].own]
    if shared:
        print(f"all     {' '.join(shared)}")
    width = max(len(cell.label) for cell in cells)
    for cell in cells:
        print(f"cell    {cell.label:<{width}}  {' '.join(cell.own)}".rstrip())


def _run_all(runs: Sequence[Run], options: argparse.Namespace) -> dict[Path, str]:
    """Run what has not finished, one after the other; return why some failed, by folder."""
    words = ["--to", options.to, *(["--offline"] if options.offline else [])]
    words += [word for plugin in options.plugin for word in ("--plugin", plugin)]
    faults: dict[Path, str] = {}
    with runs_bar() as bar:
        task = bar.add_task("", total=len(runs))
        for number, run in enumerate(runs, start=1):
            bar.update(task, description=run.title, refresh=True)
            head = f"[{number}/{len(runs)}] {run.title}"
            finished = run.is_finished(options.to)
            if not finished:
                donor = run.donor(runs)
                if donor is not None and donor[1] == TEACHER:
                    print_above(bar, f"{head}: teacher of {donor[0].title}, used again")
                if fault := run.start(options.recipe, words, donor).fault:
                    faults[run.folder] = fault
            told = "done before" if finished else _told(run, faults, options.to)
            print_above(bar, f"{head}: {told}")
            bar.advance(task)
    return faults


def _told(run: Run, faults: Mapping[Path, str], stage: str) -> str:
    if run.folder in faults:
        return f"failed: {faults[run.folder]}"
    ledger, metric = run.ledger, _choosing(run, stage)
    names = [name for name in ("student", "student-alone") if name in ledger]
    return "; ".join(_scores(ledger[name], metric) for name in ("teacher", *names))


def _scores(row: Row, metric: str | None) -> str:
    told = metric or row.headline
    valid, test = (written(value, told) for value in scores(row, metric))
    return f"{row.name} {named(told)} valid. {valid}, test {test}, {row.seconds:.1f} s"


def _choosing(run: Run, stage: str) -> str | None:
    """Return what a run's recipe chooses by; None for the headline of its problem."""
    settings = run.recipe.distill.train if stage == "distill" else run.recipe.train
    return settings.metric


def _gather(
    name: str, runs: Sequence[Run], faults: Mapping[Path, str], folder: Path, stage: str
) -> Comparison:
    """Read what all runs have measured."""
    finished = [run for run in runs if run.folder not in faults]
    headlines = list(dict.fromkeys(run.ledger["teacher"].headline for run in finished))
    headline = headlines[0] if headlines else "accuracy"
    metrics = {_choosing(run, stage) or headline for run in runs}
    agreed = len(headlines) == len(metrics) == 1 and metrics != {headline}
    metric = next(iter(metrics)) if agreed else None
    grouped: dict[Cell, list[Outcome]] = {}
    rare = ""
    for run in runs:
        fault = faults.get(run.folder, "")
        found = {} if fault else figures(run.ledger, metric)
        if found:
            found |= curve_figures(run.ledger, run.progress.get("training_rows"), metric)
            if (seen := rarest(run.folder, run.ledger["teacher"])) is not None:
                rare, found["rarest_recall"] = seen.label, seen.recall
        place = str(run.folder.relative_to(folder))
        grouped.setdefault(run.cell, []).append(Outcome(run.seed, place, found, fault))
    results = [
        Result(cell.label, cell.overrides, outcomes, _gain(outcomes, folder))
        for cell, outcomes in grouped.items()
    ]
    notes = list(_notes(runs, faults))
    if len(headlines) > 1:
        notes.insert(0, _OTHERS.format(", ".join(map(named, headlines))))
    elif len(metrics) > 1:
        notes.insert(0, _DISAGREE.format(named(headline)))
    own = [run for run in runs if run.cell == runs[0].cell]
    rivals = baselines([run.ledger for run in own if run in finished] or [own[0].ledger], metric)
    return Comparison(name, results, rivals, notes, headline, metric, rare)


def _gain(outcomes: Sequence[Outcome], folder: Path) -> Gain | None:
    finished = [folder / outcome.folder for outcome in outcomes if "gain" in outcome.figures]
    return gain_of(finished) if finished else None


def _notes(runs: Sequence[Run], faults: Mapping[Path, str]) -> Iterator[str]:
    finished = [run.progress for run in runs if run.folder not in faults]
    # A run of an earlier version says nothing of the test rows alone.
    whole = "test" if all("test" in progress for progress in finished) else "data"
    if len({progress.get(whole) for progress in finished}) > 1:
        yield "The cells do not share their rows: figures are of different splits."
    for run in runs:
        if run.folder in faults:
            yield f"{run.title}, failed: {faults[run.folder]}"


if __name__ == "__main__":
    # Ended politely, it stops its run too instead of leaving it behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
