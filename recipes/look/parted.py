"""A column that says which split each row belongs to, and that no run reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

from recipes.look.classes import told
from recipes.look.examples import Example
from recipes.look.findings import Finding
from recipes.tasks.wording import shown

_NAMES = ("split", "set", "subset", "partition", "part", "fold")
_SPLITS = {
    *("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"),
}


def split_findings(examples: Sequence[Example], read: Sequence[str | None]) -> Iterator[Finding]:
    """Tell of a column whose values are names of splits, two or more in one file.

    Args:
        examples: Rows with their other columns.
        read: Columns that the recipe makes something of.
    """
    origins = dict.fromkeys(example.origin for example in examples)
    names = dict.fromkeys(name for example in examples for name in example.others)
    for origin, name in product(origins, names):
        if name in read or name.strip().lower() not in _NAMES:
            continue
        rows = [example for example in examples if example.origin == origin]
        counts = Counter(example.others.get(name, "").strip().lower() for example in rows)
        if len(counts) > 1 and {*counts} <= _SPLITS:
            yield Finding(
                "split-column",
                "warning",
                f"The column {shown(name)} of {origin.name} says to which split a row belongs: "
                f"{told(counts)}.",
                does="A run does not read it, and draws splits of its own.",
                change="Write a file for each split, and name them with data.train, "
                "data.validation and data.test.",
            )
