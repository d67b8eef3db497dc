"""Keep, ask, merge and examine saved adapters.

python -m recipes.adapters list|answer|merge|drift …
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapters.combine import HOWS, combine_adapters
from adapters.plugins import load_plugins
from adapters.shelf import Shelf
from adapters.strategy import strategies
from recipes.adapter_folders import (
    SavedAdapter,
    check_one_backbone,
    open_workspace,
    saved_adapter,
    saved_adapters,
    short_names,
)
from recipes.console import Parser, guarded, say
from recipes.errors import RecipeError
from recipes.pipeline import RECIPE
from recipes.reporting.summary import named
from recipes.reporting.table import print_table

if TYPE_CHECKING:
    import numpy as np

    from recipes.problems import Problem
    from recipes.tasks import Split
    from recipes.workspace import Workspace

DONE = 0
_EPILOG = """\
An ADAPTER is the folder that fine-tuning wrote (runs/NAME/teacher), or its run (runs/NAME).

examples:
  python -m recipes.adapters list
  python -m recipes.adapters answer runs/topic runs/tone --text "What a film!" --text "Why?"
  python -m recipes.adapters answer runs/topic --json < texts.txt
  python -m recipes.adapters merge runs/a runs/b --how ties --density 0.3 --out runs/a-and-b
  python -m recipes.adapters drift runs/topic

exit status: 0 done; 3 an adapter, its recipe, the data or the command is wrong; 1 anything else
"""
_MERGE = """\
Merges low-rank adapters (lora, rslora and strategies around them) of one backbone and of the same
labels, which are matched by name. The result is an adapter like any other, of the strategy lora.
Heads are no updates: they are averaged, with the same weights over their sum.

cat is the exact weighted sum of the updates, at the sum of their ranks; svd brings it to the
largest rank. linear, ties, dare_linear and dare_ties work on the two factors of the updates, which
is rough and asks for equal ranks; with _svd at the end, on the updates themselves.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""

    def run() -> int:
        options = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
        return DONE

    return guarded(run)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m recipes.adapters",
        description="Keep, ask, merge and examine saved adapters.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Any, told: str, description: str = "") -> argparse.ArgumentParser:
        told_whole = description or f"{told[0].upper()}{told[1:]}."
        made = commands.add_parser(name, help=told, description=told_whole)
        made.set_defaults(command=command)
        return made

    listing = add("list", _list, "show the adapters in some folders, however deep")
    listing.add_argument("folders", nargs="*", metavar="DIR", help="(default: runs)")
    listing.add_argument("--json", action="store_true", help="every adapter in full, as JSON")

    answer = add("answer", _answer, "let several adapters of one backbone answer texts in turn")
    answer.add_argument("adapters", nargs="+", metavar="ADAPTER")
    answer.add_argument(
        "--text", action="append", help="repeatable (default: the lines of standard input)"
    )
    answer.add_argument("--json", action="store_true", help="a JSON object a text")

    merge = add("merge", _merge, "merge low-rank adapters of one backbone into one", _MERGE)
    merge.add_argument("adapters", nargs="+", metavar="ADAPTER")
    merge.add_argument("--how", choices=HOWS, required=True)
    merge.add_argument(
        "--weights", nargs="+", type=float, metavar="W",
        help="one for each adapter (default: 1 for ties, which takes a mean itself; else 1/count)",
    )  # fmt: skip
    merge.add_argument(
        "--density", type=float, default=0.5, help="share of values that ties and dare keep (0.5)"
    )
    merge.add_argument("--seed", type=int, default=0, help="of what dare drops (0)")
    merge.add_argument("--out", required=True, metavar="DIR", help="folder of the result")
    merge.add_argument("--no-score", action="store_true", help="do not ask validation rows")

    drift = add("drift", _drift, "hold an adapter merged in every way against itself unmerged")
    drift.add_argument("adapter", metavar="ADAPTER")
    drift.add_argument("--json", action="store_true", help="as JSON")

    for made in (answer, merge, drift):
        made.add_argument(
            "--plugin", action="append", default=[], metavar="MODULE",
            help="module or .py file with the strategy, instead of the recipe's; repeatable",
        )  # fmt: skip
        made.add_argument(
            "--backbone", metavar="NAME", help="instead of the recipe's, or where there is none"
        )
        made.add_argument("--offline", action="store_true", help="fetch nothing")
    for made in (answer, drift):
        made.add_argument(
            "--quantization", choices=("nf4", "int8", "none"),
            help="how the backbone is held (default: as the first adapter's recipe says)",
        )  # fmt: skip
    return parser


def _list(options: argparse.Namespace) -> None:
    found = list(saved_adapters(options.folders or ["runs"]))
    if not found:
        raise RecipeError(
            f"There are no adapters in {', '.join(options.folders) or 'runs'}. Fine-tune one: "
            "python -m recipes.run lora_cls --to finetune."
        )
    entries = [_entry(adapter) for adapter in found]
    if options.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    print_table(
        [
            {
                "folder": entry["folder"],
                "strategy": adapter.strategy,
                "labels": str(len(entry["labels"])),
                "MB": f"{entry['size_bytes'] / 1e6:.2f}",
                "backbone": Path(entry["backbone"]).name,
                "on": entry["quantization"],
                "metric": named(entry["headline"]) if entry["headline"] else "",
                "valid.": _percent(entry["validation"].get(entry["headline"])),
                "test": _percent(entry["test"].get(entry["headline"])),
            }
            for adapter, entry in zip(found, entries, strict=True)
        ]
    )


def _entry(adapter: SavedAdapter) -> dict[str, Any]:
    """Return what `list` knows of an adapter."""
    row = adapter.row
    return {
        "folder": str(adapter.folder),
        **adapter.facts,
        "size_bytes": adapter.size_bytes,
        "backbone": adapter.backbone,
        "quantization": adapter.quantization,
        "problem": adapter.problem,
        "headline": row.headline if row else "",
        "validation": dict(row.validation) if row else {},
        "test": dict(row.metrics) if row else {},
    }


def _answer(options: argparse.Namespace) -> None:
    from recipes.problems import problems
    from recipes.tasks import Split

    found = [saved_adapter(name) for name in options.adapters]
    for adapter in found:
        if not problems.get(adapter.problem).exclusive:
            raise RecipeError(
                f"{adapter.folder} gives no text one of several labels: it is for "
                f"{adapter.problem} data. Ask the bundle of its run instead."
            )
    names = short_names(found)
    texts = options.text or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise RecipeError('There is nothing to answer: give --text "…", or lines to read.')
    work = _open(found, options, options.quantization)
    shelf = Shelf(work.load(work.quantization, labels=found[0].facts["labels"]))
    answers: list[dict[str, Any]] = [{} for _ in texts]
    for name, adapter in zip(names, found, strict=True):
        shelf.add(name, adapter.folder)
        if adapter.quantization not in ("", work.quantization):
            say(f"note: {name} learnt on {adapter.quantization}, here it is {work.quantization}")
    for name, adapter in zip(names, found, strict=True):
        shelf.use(name)
        logits = _logits(work, shelf, Split(texts, [0] * len(texts)))
        problem: Problem = problems.get(adapter.problem)(shelf.labels)
        best, likely = problem.answers(logits), problem.probabilities(logits)
        for answer, place, row in zip(answers, best, likely, strict=True):
            answer[name] = {"label": problem.told(place), "probability": float(row[place])}
    if options.json:
        for text, answer in zip(texts, answers, strict=True):
            print(json.dumps({"text": text, "answers": answer}, ensure_ascii=False))
        return
    print_table(
        [
            {
                "text": text if len(text) <= 60 else f"{text[:59]}…",
                **{n: f"{a['label']} {100 * a['probability']:.1f} %" for n, a in answer.items()},
            }
            for text, answer in zip(texts, answers, strict=True)
        ]
    )


def _merge(options: argparse.Namespace) -> None:
    found = [saved_adapter(name) for name in options.adapters]
    names = short_names(found)
    out = Path(options.out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out} is there already and not empty. Choose another folder (--out).")
    work = _open(found, options, "none")
    strategy = combine_adapters(
        [adapter.folder for adapter in found],
        lambda labels: work.load("none", labels=labels),
        out,
        how=options.how,
        weights=options.weights,
        density=options.density,
        seed=options.seed,
    )
    given = " ".join(f"{weight:g}" for weight in options.weights or ())
    made = f"{options.how} of {', '.join(names)}" + (f" with the weights {given}" if given else "")
    if found[0].recipe:
        _keep_recipe(out, found[0], strategies.plain(strategy), made)
    print(f"Merged by {made} into {out}: {SavedAdapter(out).strategy}; the heads were averaged.")
    if not options.no_score:
        _score([*found, SavedAdapter(out)], [*names, "merged"], options)


def _keep_recipe(out: Path, first: SavedAdapter, strategy: dict[str, Any], made: str) -> None:
    """Put a recipe beside a merged adapter, which says what it belongs to."""
    tree = {**first.recipe, "strategy": strategy}
    if first.problem in ("multi_label", "ordinal", "regression"):
        # There is no ledger beside it that would say so.
        tree["data"] = {**tree["data"], "problem": first.problem}
    if first.problem in ("ordinal", "regression"):  # where these mean nothing
        tree["data"] |= {"min_rows": None, "rare": "drop"}
    head = f"# Backbone and data of a merged adapter: {made}.\n"
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    (out / RECIPE).write_text(head + text, encoding="utf-8")


def _score(found: Sequence[SavedAdapter], names: Sequence[str], options: Any) -> None:
    """Print every adapter's accuracy on the validation rows of every source's run."""
    from recipes.problems import problems

    columns: dict[str, Workspace] = {}
    seen = set()
    if not all(problems.get(adapter.problem).exclusive for adapter in found):
        say("not scored: that is for adapters that give a text one of several labels")
        return
    for adapter, name in zip(found[:-1], names, strict=False):
        try:
            work = open_workspace(
                adapter,
                backbone=options.backbone,
                offline=options.offline,
                plugins=options.plugin,
            )
            if work.rows.fingerprint not in seen:
                columns[name] = work
            seen.add(work.rows.fingerprint)
        except RecipeError as error:
            say(f"not scored on the rows of {name}: {error}")
    if not columns:
        return
    work = next(iter(columns.values()))
    shelf = Shelf(work.load(work.quantization, labels=found[0].facts["labels"]))
    rows = []
    for adapter, name in zip(found, names, strict=True):
        shelf.add(name, adapter.folder)
        shelf.use(name)
        problem = problems.get(adapter.problem)(shelf.labels)
        scores = {key: _percent(_accuracy(place, shelf, problem)) for key, place in columns.items()}
        rows.append({"valid. accuracy on": name, **scores})
    print_table(rows, bold=len(rows) - 1)


def _accuracy(work: Workspace, shelf: Shelf, problem: Problem) -> float:
    """Return the share of a run's validation rows whose label is answered, by name."""
    rows = work.rows.validation
    best = problem.answers(_logits(work, shelf, rows))
    pairs = zip(best.tolist(), rows.labels, strict=True)
    right = [problem.told(answer) == work.rows.labels[label] for answer, label in pairs]
    return float(sum(right) / len(right))


def _logits(work: Workspace, shelf: Shelf, rows: Split) -> np.ndarray:
    from recipes.workspace import by_length, torch_call

    examples = work.task.features(rows, work.tokenizer, work.max_length)
    return by_length(torch_call(shelf.model), examples, work.task.collator(work.tokenizer))


def _drift(options: argparse.Namespace) -> None:
    from recipes.drift import measure_drift

    adapter = saved_adapter(options.adapter)
    if adapter.run is None:
        raise RecipeError(
            f"Beside {adapter.folder} there is no {RECIPE}, and so no validation rows to ask. Put "
            "the recipe of its run there."
        )
    work = _open([adapter], options, options.quantization)
    found = measure_drift(work, adapter.folder)
    if options.json:
        print(json.dumps([asdict(drift) for drift in found], indent=2))
        return
    print_table(
        [
            {
                "merged into": drift.merged_into or "unmerged",
                "held in": "float" if drift.held_in == "none" else drift.held_in,
                "labels agree": f"{100 * drift.labels:.2f} %",
                "largest logit difference": f"{drift.max_logit_difference:.3g}",
                f"valid. {named(drift.headline)}": _percent(drift.score),
            }
            for drift in found
        ]
    )


def _open(found: Sequence[SavedAdapter], options: Any, quantization: str | None) -> Workspace:
    """Return the first adapter's run, once it is known that all are of one backbone."""
    for adapter in found:
        load_plugins(options.plugin or adapter.recipe.get("plugins") or ())
    work = open_workspace(
        found[0],
        backbone=options.backbone,
        quantization=quantization,
        offline=options.offline,
        plugins=options.plugin,
    )
    if options.backbone is None:
        check_one_backbone(found, options.offline)
    return work


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f}"


if __name__ == "__main__":
    sys.exit(main())
