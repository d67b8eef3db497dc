"""A column that says which split each row belongs to, and that no run reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from recipes.look.classes import told
from recipes.look.examples import Example
from recipes.look.findings import Finding
from recipes.tasks.wording import shown

_NAMES = ("split", "set", "subset", "partition", "part", "fold")
_SPLITS = {
    *("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"),
}


def split_findings(examples: Sequence[Example]) -> Iterator[Finding]:
    """Tell of a column whose values are names of splits, two or more.

    Args:
        examples: Rows with their other columns.
    """
    for name in dict.fromkeys(name for example in examples for name in example.others):
        counts = Counter(example.others.get(name, "").strip().lower() for example in examples)
        if name.strip().lower() in _NAMES and len(counts) > 1 and {*counts} <= _SPLITS:
            yield Finding(
                "split-column",
                "warning",
                f"The column {shown(name)} says to which split a row belongs: {told(counts)}.",
                does="A run does not read it, and draws splits of its own.",
                change="Write a file for each split, and name them with data.train, "
                "data.validation and data.test.",
            )
