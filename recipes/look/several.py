"""Several labels at a time: how many of each there are, and which rows have a wrong one.

Each label is a question of its own, answered with yes or no by classifiers that have not seen the
row, as in `recipes.look.suspects`. As most labels are rare, "no" is a good guess of any row: a row
counts as suspicious only if it also does where yes and no are taken for equally likely at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from recipes.look.classes import (
    FEW,
    by_split,
    distinct,
    odd_names,
    rare_labels,
    scarce,
    told,
    uneven,
)
from recipes.look.examples import Example
from recipes.look.findings import LISTED, NAMED, Finding, places
from recipes.look.gathering import Gathered
from recipes.look.sides import Side, sides_of
from recipes.look.suspects import (
    CHANGE,
    DOES,
    LEAST,
    MANY,
    OWN,
    WORTH,
    chances_of,
    first_rows,
    words_of,
)
from recipes.recipe import Recipe
from recipes.tasks.wording import agree, counted, listed, shown

if TYPE_CHECKING:
    import numpy as np

#: Rows times labels that are judged: that is what time goes by, some ten seconds.
_JUDGED = 400_000


def several_findings(gathered: Gathered, recipe: Recipe) -> Iterator[Finding]:
    """Tell what is wrong with the labels, where a row has any number of them.

    Args:
        gathered: The rows.
        recipe: Says which labels are left out, and what a run may do about uneven ones.
    """
    counts = by_split(gathered)
    train, texts = counts.get("train", Counter()), distinct(gathered)
    if not train:
        yield Finding(
            "one-class",
            "error",
            "No row to learn from has a label.",
            does="A run refuses the data.",
            change="Check data.label=NAME and data.separator.",
        )
        return
    yield from rare_labels(recipe.data, counts, texts, several=True)
    yield from _unknown(counts)
    yield from _too_few(counts, texts)
    yield from _constant(gathered, train)
    if len(train) > 1:
        yield from uneven(train, recipe, "multi_label")
    yield from odd_names(train)


def several_suspects(
    examples: Sequence[Example], embeddings: np.ndarray | None, left_out: dict[str, str]
) -> Iterator[Finding]:
    """Tell for each label of the rows that likely lack it, or have it, by mistake.

    Args:
        examples: Rows with any number of labels, in the order of the sample.
        embeddings: ``[rows, width]`` of the same rows, or None.
        left_out: Where to say which labels could not be judged, and why.
    """
    rows = first_rows(examples)
    chosen = [examples[row] for row in rows]
    sides = sides_of(chosen, FEW) if len(chosen) >= LEAST else []
    every = {name for example in chosen for name in example.names}
    few = sorted(every - {side.label for side in sides})
    if few:
        _leave_out(left_out, few, f"needs {LEAST} texts, {FEW} with the label and {FEW} without")
    most = max(1, _JUDGED // max(1, len(chosen)))
    if late := [side.label for side in sides[most:]]:
        _leave_out(left_out, late, f"only the {most:,} with most rows are judged, for time")
    if not sides:
        return
    words, vague = words_of(chosen), []
    vectors = None if embeddings is None else embeddings[rows]
    for side in sides[:most]:
        chances = chances_of(words, vectors, side.has.astype(int))[:, 1]
        right = float(((chances > 0.5) == side.has).mean())
        if 1 - right > WORTH * side.rarer / len(chosen):
            vague.append(side.label)
        elif len(suspects := _suspects(chances, side.has)):
            yield _finding(chosen, side, suspects, chances, right)
    if vague:
        _leave_out(left_out, vague, "simple classifiers know too little here to judge rows by")


def _leave_out(left_out: dict[str, str], labels: Sequence[str], why: str) -> None:
    key = f"label errors of {counted(len(labels), 'label')}, {listed(map(shown, labels), 5)}"
    left_out[key] = why


def _suspects(chances: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return the suspicious rows, the surest first.

    Args:
        chances: Probability that a row has the label, ``[rows]``.
        has: Whether it has.
    """
    import numpy as np

    odds = chances.clip(1e-9, 1 - 1e-9)
    odds = odds / (1 - odds)
    even = odds * (~has).sum() / has.sum()
    own = np.where(has, np.maximum(odds, even), np.maximum(1 / odds, 1 / even))
    own = own / (1 + own)
    rows = np.flatnonzero(own < OWN)
    return rows[np.argsort(own[rows], kind="stable")]


def _finding(
    examples: Sequence[Example],
    side: Side,
    suspects: np.ndarray,
    chances: np.ndarray,
    right: float,
) -> Finding:
    share, label = len(suspects) / len(examples), shown(side.label)
    lines = []
    for row in suspects[:NAMED]:
        example, has = examples[row], bool(side.has[row])
        chance = chances[row] if not has else 1 - chances[row]
        lines.append(
            f"{places([(example.origin, example.number)])}: {shown(example.text, 80)} "
            f"{'has' if has else 'lacks'} {label}, looks {'without' if has else 'like'} it "
            f"({chance:.2f})"
        )
    extra = int(side.has[suspects].sum())
    return Finding(
        "label-errors",
        "warning" if share >= MANY else "note",
        f"The label {label} is likely wrong, or hard, in {counted(len(suspects), 'row')} "
        f"({share:.1%}) of {len(examples):,} judged: {extra:,} {agree(extra, 'have')} it and "
        f"{len(suspects) - extra:,} {agree(len(suspects) - extra, 'lack')} it, and classifiers "
        f"that have not seen {'it' if len(suspects) == 1 else 'them'}, right on {right:.0%} of all "
        "rows, are sure of the contrary. The surest first.",
        places([(examples[row].origin, examples[row].number) for row in suspects]),
        DOES,
        CHANGE,
        lines,
        [(examples[row].origin.name, examples[row].number) for row in suspects[:LISTED]],
    )


def _unknown(counts: dict[str, Counter[str]]) -> Iterator[Finding]:
    for split in ("validation", "test"):
        strange = [label for label in counts.get(split, ()) if label not in counts["train"]]
        if strange:
            yield Finding(
                "unknown-label",
                "error",
                f"{counted(len(strange), 'label')} of the {split} data that no training row has: "
                f"{listed(map(shown, strange), 5)}.",
                does="A run refuses the data.",
                change="Add training rows with the label, correct it, or take it off the rows.",
            )


def _constant(gathered: Gathered, train: Counter[str]) -> Iterator[Finding]:
    rows = sum(n for origin, n in gathered.used.items() if origin.split == "train")
    every = [label for label, n in train.items() if n == rows]
    if every:
        yield Finding(
            "constant-label",
            "warning",
            f"Every row to learn from has the {'label' if len(every) == 1 else 'labels'} "
            f"{listed(map(shown, every), 5)}.",
            does="A run learns to give it always, and its figures flatter.",
            change="Add rows without it, or take it off the rows.",
        )


def _too_few(counts: dict[str, Counter[str]], texts: Counter[str]) -> Iterator[Finding]:
    drawn, rare, few = scarce(counts, texts)
    needed = 1 + len(drawn)
    if rare:
        yield Finding(
            "rare-class",
            "warning",
            f"{counted(len(rare), 'label')} on fewer than {needed} different "
            f"{'text' if needed == 1 else 'texts'} to learn from: {told(rare)}.",
            does=f"A run draws the {' and the '.join(drawn)} split by chance, and refuses the data "
            "if no row to learn from is left with such a label; if one is, it is hardly learned, "
            "and not measured."
            if drawn
            else "A run has nothing to learn the label from.",
            change="Add rows with the label, or take it off the rows: data.min_rows=N takes off "
            "those on fewer than N; with data.rare=merge they become one.",
        )
    if few:
        yield Finding(
            "small-class",
            "warning",
            f"{counted(len(few), 'label')} on fewer than {FEW} different texts: {told(few)}.",
            does="A run learns such a label, but its figures say little about it, and a drawn "
            "split may have no row with it.",
            change="Add rows, or merge such labels with others (data.min_rows=N data.rare=merge).",
        )
