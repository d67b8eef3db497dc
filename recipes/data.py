"""Look at the data first: what is wrong with them, what a run does about it, how to change that.

python -m recipes.data RECIPE|FILE [key=value …]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from recipes.console import Parser, guarded
from recipes.errors import RecipeError
from recipes.look.findings import LEVELS, Finding, Look
from recipes.reading import read_recipe, shipped_recipes
from recipes.recipe import Recipe
from recipes.reporting.units import one_line

DONE = 0
#: The recipe of which a file takes the data's place.
_USUAL = "lora_cls"
_WIDTH = 100
_EPILOG = """\
examples:
  python -m recipes.data reviews.csv
  python -m recipes.data reviews.csv data.text=review data.label=stars
  python -m recipes.data lora_cls data.train=train.csv data.test=test.csv --json look.json
  python -m recipes.data lora_cls data.source=airline-tweets backbone.model=mpnet-base

FILE is a table (.csv, .tsv, .jsonl, .parquet) or a text a line (.txt), of any size: it is read in
windows, and what needs more than counting is done on a sample. Nothing is changed.

exit status: 0 looked, whatever was found; 3 the file, the recipe or the command is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    stopped = "stopped; nothing was changed"
    return guarded(lambda: _run(_parser().parse_intermixed_args(arguments)), stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.data",
        description="Say what is wrong with labelled texts, where, what a run does about it, and "
        "how to change that.",
        epilog=_EPILOG,
    )
    parser.add_argument("data", metavar="RECIPE|FILE", help="a recipe, or a table of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the recipe")
    parser.add_argument("--json", metavar="FILE", help="write all of it as JSON, too")
    parser.add_argument(
        "--sample", type=_count, default=None, metavar="N",
        help="rows that are looked at closely, for near duplicates, label errors and leaks "
        "(default: 20000)",
    )  # fmt: skip
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers a task or others; repeatable",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use what is cached, fetch nothing")
    return parser


def _count(text: str) -> int:
    from export.console import count

    return count(text)


def _run(options: argparse.Namespace) -> int:
    recipe = _recipe(options.data, options.overrides, options.plugin)
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from recipes.console import hush
    from recipes.look.gathering import SAMPLE
    from recipes.look.looking import look_at_recipe

    hush()
    if options.json and not Path(options.json).absolute().parent.is_dir():
        raise RecipeError(f"There is no folder for --json {options.json}. Make it first.")
    look = look_at_recipe(recipe, offline=options.offline, sample=options.sample or SAMPLE)
    fault = _write(Path(options.json), look) if options.json else None
    print("\n".join(_lines(look)))
    if fault is not None:
        raise fault
    return DONE


def _recipe(name: str, overrides: Sequence[str], plugins: Sequence[str]) -> Recipe:
    """Read the recipe, or the usual one with a file's rows."""
    path = Path(name)
    is_recipe = name in shipped_recipes() or path.suffix in (".yaml", ".yml")
    if is_recipe or (not path.suffix and not path.exists()):
        return read_recipe(name, overrides, plugins)
    # JSON is YAML: quotes and brackets in a file's name stay what they are.
    return read_recipe(_USUAL, [f"data.train={json.dumps(name)}", *overrides], plugins)


def _write(path: Path, look: Look) -> RecipeError | None:
    """Write a look as JSON; return what a person is told if that fails, once the look is shown."""
    try:
        path.write_text(json.dumps(look.plain(), indent=2, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        return RecipeError(
            f"{path} cannot be written: {error.strerror or error}. Choose another place: --json "
            "FILE."
        )
    return None


def _lines(look: Look) -> list[str]:
    width = max(map(len, ["data", *look.facts]), default=0) + 2
    lines = _told("data", look.source, width)
    for title, fact in look.facts.items():
        lines += _told(title, fact, width)
    for finding in look.findings:
        lines += ["", *_finding(finding)]
    counts = ", ".join(
        f"{n} {level}{'s' * (n != 1)}" for level in LEVELS if (n := look.count(level))
    )
    lines += ["", f"Found: {counts or 'nothing that is wrong'}. Looked for {look.seconds:.0f} s."]
    for check, reason in look.left_out.items():
        lines += textwrap.wrap(f"Not looked at: {check}: {reason}", _WIDTH, subsequent_indent="  ")
    return lines


def _finding(finding: Finding) -> list[str]:
    lines = _told(finding.level, f"{finding.code}: {finding.what}", 10)
    for title, words in (("where", finding.where), ("run", finding.does), ("you", finding.change)):
        if words:
            lines += [" " * 2 + line for line in _told(title, words, 8)]
    return [*lines, *(f"          · {one_line(example)}" for example in finding.examples)]


def _told(title: str, words: str, width: int) -> list[str]:
    # A command may not be broken, nor a path.
    return textwrap.wrap(
        f"{title:<{width}}{one_line(words)}", _WIDTH, subsequent_indent=" " * width,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
