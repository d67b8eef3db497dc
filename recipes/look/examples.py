"""The seam between rows as they are written and what the checks look at: a text and its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recipes.look.findings import Origin
from recipes.tasks.columns import is_list, label_name, one_text, unpacked
from recipes.tasks.wording import listed, shown

#: Other columns that are looked at, and characters of their values that are kept.
_OTHERS, _KEPT = 50, 200


@dataclass(frozen=True, slots=True)
class Example:
    """One row.

    Attributes:
        origin: Where it comes from.
        number: Its number there, as the person counts.
        text: The text; None, or what else the column holds.
        label: The label's name; of several labels their names, joined; None if there is none.
        others: The other columns' values as text.
        each: Of several labels at a time the name of each; None where a row has one.
    """

    origin: Origin
    number: int
    text: Any
    label: str | None
    others: Mapping[str, str] = field(default_factory=dict)
    each: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every label of the row."""
        if self.each is not None:
            return self.each
        return () if self.label is None else (self.label,)


def name_of(value: Any) -> str | None:
    """Return a label's name, whatever the kind; lists in a fixed order, so that equals are equal.

    An empty list is a label too: none of them applies.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value[key]}" for key in sorted(value, key=str))
    if not is_list(value):
        return label_name(value)
    return " + ".join(sorted({label_name(each) or "" for each in value}))


def each_of(value: Any) -> tuple[str, ...]:
    """Return the names of several labels, each once, in a fixed order."""
    values = value if is_list(value) else [value]
    return tuple(sorted({name for each in values if (name := label_name(each)) is not None}))


@dataclass(frozen=True)
class Columns:
    """Where a table has what is looked at.

    Attributes:
        text: The column of the texts.
        pair: The column of the second texts, if rows are pairs.
        labels: The column of the labels; several that say with 0 and 1 which apply; none.
        separator: What parts several labels in one column.
        several: Whether a row has any number of labels.
        ticked: Whether the columns of the labels say with 0 and 1 which apply.
    """

    text: str
    pair: str | None = None
    labels: tuple[str, ...] = ()
    separator: str | None = None
    several: bool = False
    ticked: bool = False

    def text_of(self, row: Mapping[str, Any]) -> Any:
        """Return a row's text, or both of a pair as one."""
        text = row.get(self.text)
        return text if self.pair is None else one_text(text, row.get(self.pair))

    def label_of(self, row: Mapping[str, Any]) -> Any:
        """Return what a row says as its label: a value, or a list."""
        if self.ticked:
            said = {name: (label_name(row.get(name)) or "").lower() for name in self.labels}
            if "" in said.values():
                return None
            return [name for name, value in said.items() if value in ("1", "true", "yes")]
        value = row.get(self.labels[0]) if self.labels else None
        if self.several or self.separator is not None:
            value = unpacked(value)
        if self.separator is not None and isinstance(value, str):
            return [part.strip() for part in value.split(self.separator) if part.strip()]
        return value

    def told(self) -> str:
        """Say which columns they are, and which keys name others."""
        texts = [self.text] if self.pair is None else [self.text, self.pair]
        keys = "data.text" if self.pair is None else "data.text and data.pair"
        if not self.labels:
            return f"text {shown(self.text)} (data.text), no labels (data.label)"
        return (
            f"text {listed(map(shown, texts))} ({keys}), "
            f"label {listed(map(shown, self.labels))} (data.label)"
        )


def example_of(origin: Origin, number: int, row: Mapping[str, Any], columns: Columns) -> Example:
    """Return a row's example.

    Args:
        origin: Where the row comes from.
        number: Its number there.
        row: Its values by column.
        columns: Where its text and its label are.
    """
    others = {
        name: str(value)[:_KEPT]
        for name, value in list(row.items())[:_OTHERS]
        if name not in (columns.text, columns.pair, *columns.labels) and value is not None
    }
    label = columns.label_of(row)
    if label is None and columns.separator is not None:
        label = []  # none of them
    each = each_of(label) if columns.several else None
    return Example(origin, number, columns.text_of(row), name_of(label), others, each)
