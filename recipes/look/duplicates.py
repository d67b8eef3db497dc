"""Texts that are there more than once, with one label or with several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from recipes.look.findings import NAMED, Finding, places
from recipes.look.prints import Equals, Prints
from recipes.recipe import DataSettings
from recipes.tasks.wording import agree, counted, listed, shown

if TYPE_CHECKING:
    import numpy as np

_ORDER = ("test", "validation", "train")


def duplicate_findings(prints: Prints, settings: DataSettings, problem: str) -> Iterator[Finding]:
    """Tell of equal texts within a split and across splits, and of those with several labels.

    Args:
        prints: The texts' hashes.
        settings: What the recipe says about them.
        problem: Name of the problem type; numbers contradict each other in no simple sense.
    """
    import numpy as np

    equals = prints.equals()
    splits = np.array([_ORDER.index(origin.split) for origin in prints.origins])[equals.origins]
    sampled = f" Counted on one in {equals.every} different texts." if equals.every > 1 else ""
    yield from _within(prints, equals, splits, sampled)
    yield from _across(prints, equals, splits, settings, sampled)
    if problem != "regression":
        what = "label" if problem != "multi_label" else "set of labels"
        yield from _contradictions(prints, equals, what, sampled)


def _within(prints: Prints, equals: Equals, splits: np.ndarray, sampled: str) -> Iterator[Finding]:
    import numpy as np

    # The same text in the same split: a group is a pair of both.
    _, first, which = np.unique(
        equals.first * len(_ORDER) + splits, return_index=True, return_inverse=True
    )
    again = np.flatnonzero(first[which] != np.arange(len(which)))
    if len(again):
        yield Finding(
            "duplicates",
            "warning" if len(again) >= 0.01 * len(which) else "note",
            f"{counted(len(again), 'row')} ({len(again) / len(which):.2%}) "
            f"{agree(len(again), 'repeat')} the text of an earlier row of the same split.{sampled}",
            _where(prints, equals, again),
            "A run keeps the first row of each text and leaves the others out.",
            "Take out the ones that should not count; there is no key that keeps them.",
        )


def _across(
    prints: Prints, equals: Equals, splits: np.ndarray, settings: DataSettings, sampled: str
) -> Iterator[Finding]:
    import numpy as np

    texts = {split: set(equals.first[splits == at]) for at, split in enumerate(_ORDER)}
    refused = settings.overlap == "refuse"
    for kept, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        shared = texts[kept] & texts[other]
        if not shared:
            continue
        rows = np.flatnonzero((splits == _ORDER.index(other)) & np.isin(equals.first, list(shared)))
        them = "it" if len(shared) == 1 else "them"
        share = len(shared) / max(1, len(texts[kept]))
        yield Finding(
            "overlap",
            "error" if refused else "warning",
            f"{counted(len(shared), 'text')} of the {kept} data ({share:.2%}) "
            f"{agree(len(shared), 'are')} in the {other} data, too.{sampled}",
            _where(prints, equals, rows),
            "A run refuses the data: data.overlap=refuse."
            if refused
            else f"A run takes {them} out of the {other} data.",
            f"data.overlap=remove takes {them} out."
            if refused
            else "data.overlap=refuse makes a run stop instead.",
        )


def _contradictions(prints: Prints, equals: Equals, what: str, sampled: str) -> Iterator[Finding]:
    import numpy as np

    labelled = equals.labels >= 0
    pairs = np.unique(
        np.stack([equals.first[labelled], equals.labels[labelled].astype(np.int64)]), axis=1
    )
    texts, labels = np.unique(pairs[0], return_counts=True)
    torn = texts[labels > 1]
    if not len(torn):
        return
    rows = np.flatnonzero(np.isin(equals.first, torn) & labelled)
    examples = []
    for text in torn[:NAMED]:
        same = np.flatnonzero((equals.first == text) & labelled)[:NAMED]
        names = prints.names(equals.labels[same].tolist())
        told = listed(map(shown, dict.fromkeys(names)))
        examples.append(f"{_where(prints, equals, same)}: {told}")
    yield Finding(
        "contradictions",
        "warning",
        f"{counted(len(torn), 'text')} with more than one {what}, in {counted(len(rows), 'row')}."
        f"{sampled}",
        _where(prints, equals, rows),
        "A run keeps the first row of each text, with its label.",
        "Correct or take out the rows with the wrong label; or put the right one first.",
        examples,
    )


def _where(prints: Prints, equals: Equals, rows: np.ndarray) -> str:
    named = [
        (prints.origins[equals.origins[row]], int(equals.numbers[row])) for row in rows[:NAMED]
    ]
    return places(named, len(rows))
