"""The whole look: at a recipe's data as they lie there, or at the rows of a run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.long_text import told
from recipes.look.characters import languages, odd_characters
from recipes.look.classes import by_split, class_findings
from recipes.look.duplicates import duplicate_findings
from recipes.look.examples import Columns, Example, example_of
from recipes.look.files import broken_file, unusable_rows
from recipes.look.findings import Finding, Look, Origin
from recipes.look.gathering import SAMPLE, Gathered
from recipes.look.leaks import leak_findings, several_leaks
from recipes.look.near import near_findings, near_pairs
from recipes.look.numbers import number_findings, number_of
from recipes.look.parted import split_findings
from recipes.look.several import several_findings, several_suspects
from recipes.look.sources import Source, columns_of, sources_of
from recipes.look.suspects import suspect_findings
from recipes.look.tokens import token_findings
from recipes.problems import problems
from recipes.recipe import Recipe
from recipes.tasks.columns import label_name, label_names
from recipes.tasks.fewer import fewer
from recipes.tasks.kinds import find_problem
from recipes.tasks.wording import counted, listed, measured, shown

if TYPE_CHECKING:
    import numpy as np

    from recipes.workspace import Workspace

#: Rows that a run looks at closely; bytes of files that are also read as a run reads them.
_IN_RUN, _READ_WHOLE = 5_000, 32 * 2**20
_CALLED = {"train": "training"}
_SAMPLED = "near duplicates, label errors, far numbers, leaks, splits, tokens and languages"


def look_at_recipe(recipe: Recipe, *, offline: bool = False, sample: int = SAMPLE) -> Look:
    """Look at the data that a recipe names, in bounded memory, and tell all that is found.

    Args:
        recipe: The recipe.
        offline: Never touch the network.
        sample: Rows that are looked at closely.

    Raises:
        RecipeError: There is nothing to look at: a file or a column is missing, the data set cannot
            be had.
    """
    start = time.perf_counter()
    sources, called = sources_of(recipe, offline)
    look = Look(called)
    gathered = Gathered(recipe.data.max_characters, limit=sample)
    problem = _gather(sources, recipe, gathered, look)
    for source in sources:
        if source.path is not None:
            look.add(broken_file(source.path, source.troubles))
    _check(look, gathered, recipe, problem)
    _check_tokens(look, gathered, recipe, offline)
    _check_refusal(look, recipe, sources, problem, offline)
    look.seconds = time.perf_counter() - start
    return look


def look_at_rows(work: Workspace, embeddings: Mapping[str, np.ndarray] | None = None) -> Look:
    """Look at the rows of a run: unusable rows and equal texts are gone already.

    Args:
        work: The run.
        embeddings: ``[rows, width]`` of each split, by its name.
    """
    start = time.perf_counter()
    rows = work.rows
    look = Look(rows.source)
    gathered = Gathered(work.recipe.data.max_characters, limit=_IN_RUN)
    gathered.pairs = work.task.pairs
    several = rows.problem == "multi_label"
    for name in ("train", "validation", "test"):
        split = getattr(rows, name)
        origin = Origin(f"the {_CALLED.get(name, name)} split", name, "row")
        gathered.add(
            Example(
                origin,
                number,
                text,
                work.problem.told(label),
                each=tuple(compress(rows.labels, label)) if several else None,
            )
            for number, (text, label) in enumerate(
                zip(split.texts, split.labels, strict=True), start=1
            )
        )
    gathered.finish()
    vectors = None
    if embeddings is not None:
        import numpy as np

        vectors = np.stack([embeddings[e.origin.split][e.number - 1] for e in gathered.sample])
    _check(look, gathered, work.recipe, rows.problem, vectors)
    way = told(work.recipe.data.long, work.max_length)
    look.add(token_findings(gathered, work.tokenizer, work.max_length, way, look.facts))
    look.seconds = time.perf_counter() - start
    return look


def _gather(sources: Sequence[Source], recipe: Recipe, gathered: Gathered, look: Look) -> str:
    """Go over all rows once; return the name of the problem type that a run would take."""
    from tqdm import tqdm

    problem = "single_label"
    size = sum(source.path.stat().st_size for source in sources if source.path and _there(source))
    with tqdm(total=size, unit="B", unit_scale=True, disable=None, desc="reading") as bar:
        for place, source in enumerate(sources):
            columns = Columns("")
            for count, window in enumerate(source.windows(bar.update)):
                if count == 0 and window:
                    columns = columns_of(window, source, recipe)
                    values = [columns.label_of(row) for _, row in window]
                    if place == 0:
                        look.facts["columns"] = columns.told()
                        gathered.pairs = columns.pair is not None
                    if place == 0 and columns.labels:
                        problem = _problem(look, values, columns, recipe, source)
                    elif place == 0:
                        gathered.labelled = False
                    elif all(value is None for value in values):
                        look.left_out[source.origin.name] = "it has no labels; a run leaves it out"
                        break
                    columns = replace(columns, several=problem == "multi_label")
                gathered.add(
                    example_of(source.origin, number, row, columns) for number, row in window
                )
    gathered.finish()
    return problem


def _problem(
    look: Look, values: Sequence[Any], columns: Columns, recipe: Recipe, source: Source
) -> str:
    """Return the problem type that a run would take, and tell it with its reasons."""
    try:
        problem, notes = find_problem(values, columns.labels[0], recipe.data, source.origin.name)
    except RecipeError as error:
        notes, problem = [], "single_label"
        look.add([Finding("refused", "error", str(error), does="A run refuses the data.")])
    how = "asked for" if recipe.data.problem != "auto" else "found in the labels"
    look.facts["problem"] = " ".join([f"{problem}, {how} (data.problem).", *notes])
    return problem


def _there(source: Source) -> bool:
    return source.path is not None and source.path.is_file()


def _check(
    look: Look,
    gathered: Gathered,
    recipe: Recipe,
    problem: str,
    embeddings: np.ndarray | None = None,
) -> None:
    """Do every check that needs the rows alone."""
    settings, sample = recipe.data, gathered.sample
    _tell_rows(look, gathered, problem)
    look.add(unusable_rows(gathered, settings))
    look.add(odd_characters(gathered.odd, gathered.rows.total()))
    if not sample:
        look.left_out["everything else"] = "no row can be used"
        return
    if not gathered.whole:
        look.facts["sample"] = (
            f"{_SAMPLED} were looked for in {len(sample):,} of {gathered.usable:,} rows, drawn "
            "evenly with a fixed seed; all else in every row"
        )
    look.add(_label_findings(look, gathered, recipe, problem, embeddings))
    phase = recipe.phases.column if recipe.phases is not None else None
    look.add(split_findings(sample, (phase, *settings.slices)))
    look.add(duplicate_findings(gathered.prints, settings, problem))
    look.add(near_findings(near_pairs(sample), sample, settings, gathered.whole))
    spoken, scripts = languages([example.text for example in sample])
    look.facts["languages, a guess"] = spoken or "too few texts of 40 characters or more to guess"
    look.facts["scripts"] = scripts or "no letters"


def _label_findings(
    look: Look, gathered: Gathered, recipe: Recipe, problem: str, embeddings: np.ndarray | None
) -> Iterator[Finding]:
    """Do the checks of labels that make sense for the problem type."""
    sample = gathered.sample
    if not gathered.labelled:
        look.left_out["labels"] = "there is no column with labels"
        yield Finding(
            "no-labels",
            "error",
            "There are texts, and no labels.",
            does="A run cannot learn from them.",
            change="Name a column with labels: data.label=NAME. Text alone can help a student: "
            "distill.text=FILE.",
        )
        return
    if problem == "multi_label":
        yield from several_findings(gathered, recipe)
        yield from several_suspects(sample, embeddings, look.left_out)
        yield from several_leaks(sample, look.left_out)
    elif problem == "regression":
        yield from number_findings(sample, embeddings, look.left_out)
    elif problems.get(problem).exclusive:
        yield from class_findings(gathered, recipe, problem)
        order = _order(sample, recipe) if problem == "ordinal" else ()
        yield from suspect_findings(sample, embeddings, look.left_out, order)
        yield from leak_findings(sample)
    else:
        look.left_out["rare classes, label errors, leaks"] = (
            f"nothing is known of labels of the type {problem}"
        )


def _order(examples: Sequence[Example], recipe: Recipe) -> Sequence[str]:
    """Return labels from low to high; none if the order does not name them all."""
    names = [example.label for example in examples if example.label is not None]
    if recipe.data.order is None:
        return label_names(names)
    order = [label_name(label) or "" for label in recipe.data.order]
    return order if {*names} <= {*order} else ()


def _tell_rows(look: Look, gathered: Gathered, problem: str) -> None:
    told = listed(f"{count:,} of {origin.name}" for origin, count in gathered.rows.items())
    look.facts["rows"] = told or "none that can be read"
    counts: Counter[str] = by_split(gathered).get("train", Counter())
    if problem == "regression":
        _tell_numbers(look, gathered)
        return
    if not counts:
        return
    total = counts.total()
    if problem == "multi_label":
        learnt = [origin for origin in gathered.used if origin.split == "train"]
        rows, bare = (sum(of[o] for o in learnt) for of in (gathered.used, gathered.bare))
        look.facts["labels"] = (
            f"{len(counts):,}, in {counted(len(gathered.sets), 'combination')}; a row has "
            f"{total / rows:.1f} on the average, {counted(bare, 'row')} none"
        )
        total = rows
    else:
        look.facts["classes"] = f"{len(counts):,}"
    look.facts["balance"] = listed(
        (f"{shown(label)} {n:,} ({n / total:.1%})" for label, n in counts.most_common()), 10
    )


def _tell_numbers(look: Look, gathered: Gathered) -> None:
    numbers = sorted(n for example in gathered.sample if (n := number_of(example)) is not None)
    if numbers and gathered.labelled:
        spread = numbers[-1] - numbers[0]
        low, middle, high = (
            measured(numbers[place], spread) for place in (0, (len(numbers) - 1) // 2, -1)
        )
        look.facts["numbers"] = f"from {low} to {high}, half of them at most {middle}"


def _check_tokens(look: Look, gathered: Gathered, recipe: Recipe, offline: bool) -> None:
    """Count tokens, if the backbone can be had."""
    from adapters.hardware import Hardware
    from recipes.workspace import Workspace

    if not gathered.sample:
        return
    # Nothing is computed there: only the tokenizer and the limits are wanted.
    nowhere = Hardware("cpu", "", 1, bf16=False, vnni=False, flags=())
    work = Workspace(recipe, Path(), nowhere, offline)
    try:
        tokenizer = work.tokenizer
    except RecipeError as error:
        look.left_out["tokens"] = f"the backbone cannot be had: {error}"
        return
    try:
        limit = work.max_length
    except RecipeError as error:
        look.add([Finding("max-length", "error", str(error), does="A run refuses the recipe.")])
        return
    look.add(token_findings(gathered, tokenizer, limit, told(recipe.data.long, limit), look.facts))


def _check_refusal(
    look: Look, recipe: Recipe, sources: Sequence[Source], problem: str, offline: bool
) -> None:
    """Read small data as a run reads them: whatever it refuses is told, in its own words."""
    from recipes.tasks import tasks

    if look.count("error") or _size(sources) > _READ_WHOLE:
        return
    read: Callable[..., Any] = tasks.get(recipe.task)().read
    try:
        rows = fewer(read(recipe.data, recipe.phases, offline=offline), recipe.data, recipe.seed)
    except RecipeError as error:
        look.add([Finding("refused", "error", str(error), does="A run refuses the data.")])
        return
    if rows.problem != problem:
        look.add(
            [
                Finding(
                    "other-problem",
                    "warning",
                    f"The first rows are a problem of the type {problem}, and all together are one "
                    f"of the type {rows.problem}: labels further down are of another kind.",
                    does=f"A run takes {rows.problem}. This look went by {problem}.",
                    change=f"Mend these labels, or set data.problem={problem}.",
                )
            ]
        )


def _size(sources: Sequence[Source]) -> int:
    return sum(source.path.stat().st_size for source in sources if source.path is not None)
