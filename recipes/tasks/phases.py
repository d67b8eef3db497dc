"""Rows that arrive in phases: which row is in which, and what the splits have to hold for each."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.tasks.columns import label_name, label_names
from recipes.tasks.wording import counted, listed, shown

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from recipes.recipe import PhasesSettings

_MOST = 50
# Dates that do not sort as text does. ISO dates do.
_DATES = (
    "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%m.%Y", "%m/%Y", "%m-%Y",
    "%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%B %Y", "%b %Y", "%b-%Y",
    "%b-%y", "%B", "%b",
)  # fmt: skip


def assign(
    frames: Mapping[str, DataFrame], names: Mapping[str, str], settings: PhasesSettings
) -> tuple[dict[str, DataFrame], dict[str, str], list[str]]:
    """Say of each row which phase it is in.

    Args:
        frames: Cleaned frames by split; with ``settings.files`` the training frame first, then one
            for each of the files; with ``settings.column`` each has a column ``phase``, the value.
        names: What each frame is called in messages, usually its file.
        settings: What makes a phase.

    Returns:
        The frames by split, with the number of the phase (from 0) in the column ``phase``; what
        each of them is called; and the phases' names, in their order.

    Raises:
        RecipeError: The groups of classes are not those of the data, or the column has one value,
            too many, or dates that can be read in two ways.
    """
    if settings.files is not None:
        whole = {"train": listed(names.values(), 4)}
        return {"train": _joined(frames, names)}, whole, list(names.values())
    if settings.column is not None:
        values = _in_order({value for frame in frames.values() for value in frame["phase"]})
        _check_values(values, settings.column, listed(names.values(), 4))
        places = {value: place for place, value in enumerate(values)}
        numbered = {key: _numbered(frame, "phase", places) for key, frame in frames.items()}
        # A day in a Parquet file comes with the time of its beginning.
        return numbered, dict(names), [value.removesuffix(" 00:00:00") for value in values]
    groups = _groups(frames, settings.classes)
    places = {label: place for place, group in enumerate(groups) for label in group}
    numbered = {key: _numbered(frame, "label", places) for key, frame in frames.items()}
    return numbered, dict(names), [", ".join(group) for group in groups]


def repeated(frame: DataFrame) -> Series:
    """Mark the rows whose text another row has that comes first, or in an earlier phase."""
    if "phase" not in frame:
        return frame["text"].duplicated()
    earliest = frame.sort_values("phase", kind="stable")
    return earliest["text"].duplicated().reindex(frame.index)


def strata(rows: DataFrame, fraction: float) -> Series:
    """Return for each row the group of which a draw takes its share.

    That is the row's label, and where a label occurs in several phases, label and phase. Labels too
    rare in a phase to give a row to both sides are one group together, except for the first row of
    each: that stays, so that nothing drawn has a label which is learned only later.

    Args:
        rows: The rows to draw from.
        fraction: Share that is drawn.

    Returns:
        The group, or a missing value for a row that is not drawn.
    """
    if "phase" not in rows or (rows.groupby("label")["phase"].nunique() == 1).all():
        return rows["label"]
    enough = 1 / min(fraction, 1 - fraction)
    phase = rows["phase"].astype(str)
    cell = phase + ":" + rows["label"]
    common = cell.map(cell.value_counts()) >= enough
    group = cell.where(common, phase).where(common | cell.duplicated())
    return group.where(group.map(group.value_counts()) >= enough)


def check_phases(
    parts: Mapping[str, DataFrame], phases: Sequence[str], given: Mapping[str, str]
) -> None:
    """Refuse a phase that is not in every split.

    Args:
        parts: Frames by split.
        phases: Names of the phases.
        given: What the splits that were not drawn are called in messages.

    Raises:
        RecipeError: Some phase has no rows to train, to validate or to test.
    """
    for place, phase in enumerate(phases):
        rows = {name: int((parts[name]["phase"] == place).sum()) for name in _SPLITS}
        lacking = [name for name in _SPLITS if not rows[name]]
        if lacking:
            ways = [
                f"add rows of it to {given[name]}"
                if name in given
                else f"raise data.{name}_fraction or add rows of it"
                for name in lacking
            ]
            raise RecipeError(
                f"Phase {place + 1}, {shown(phase)}, has {_sizes(rows)}, and needs rows of all "
                f"three: {listed(ways)}; or let fewer phases hold more rows each (phases)."
            )


def by_first_phase(labels: Sequence[str], train: DataFrame) -> list[str]:
    """Order labels by the phase that they are first learned in, and keep their order within it."""
    return sorted(labels, key=train.groupby("label")["phase"].min().to_dict().__getitem__)


def phase_notes(parts: Mapping[str, DataFrame], phases: Sequence[str]) -> list[str]:
    """Return what a person should know of the phases: their sizes, and rows that come too early."""
    first = parts["train"].groupby("label")["phase"].min()
    said = []
    for place, phase in enumerate(phases):
        rows = {name: int((parts[name]["phase"] == place).sum()) for name in _SPLITS}
        new = counted(int((first == place).sum()), "new label")
        said.append(f"{place + 1} {shown(phase)} {counted(sum(rows.values()), 'row')} ({new})")
    notes = [f"Phases: {', '.join(said)}"]
    for name in ("validation", "test"):
        early = parts[name]["label"].map(first) > parts[name]["phase"]
        if count := int(early.sum()):
            notes.append(
                f"{counted(count, 'row')} of the {name} split {'has' if count == 1 else 'have'} a "
                f"label that is first learned in a later phase, and cannot be right before it."
            )
    return notes


_SPLITS = ("train", "validation", "test")
_PURPOSES = {"train": "to train", "validation": "to validate", "test": "to test"}


def _sizes(rows: Mapping[str, int]) -> str:
    return listed(f"{counted(rows[name], 'row')} {_PURPOSES[name]}" for name in rows)


def _numbered(frame: DataFrame, column: str, places: Mapping[str, int]) -> DataFrame:
    return frame.assign(phase=frame[column].map(places).astype(int))


def _joined(frames: Mapping[str, DataFrame], names: Mapping[str, str]) -> DataFrame:
    """Put the files' rows into one frame; a row's number says of which file it is."""
    import pandas as pd

    parts = []
    for place, (key, frame) in enumerate(frames.items()):
        rows = pd.Index([f"{row} of {names[key]}" for row in frame.index], name=frame.index.name)
        parts.append(frame.set_axis(rows).assign(phase=place))
    return pd.concat(parts)


def _groups(frames: Mapping[str, DataFrame], classes: Any) -> list[list[str]]:
    """Return the labels of each phase: even parts of all of them, or as the recipe groups them."""
    import pandas as pd

    labels = label_names(pd.concat([frame["label"] for frame in frames.values()]))
    if isinstance(classes, int):
        if classes > len(labels):
            raise RecipeError(
                f"phases.classes={classes} needs that many labels, and the data have "
                f"{len(labels)}: {listed(map(shown, labels))}. Lower it."
            )
        ends = [len(labels) * place // classes for place in range(classes + 1)]
        return [labels[start:end] for start, end in itertools.pairwise(ends)]
    groups = [[label_name(label) or "" for label in group] for group in classes]
    _check_groups(list(itertools.chain(*groups)), labels)
    return groups


def _check_groups(grouped: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse groups that do not have every label once."""
    unknown = [label for label in grouped if label not in labels]
    if unknown:
        near = difflib.get_close_matches(unknown[0], labels, n=1)
        hint = f" Did you mean {shown(near[0])}?" if near else ""
        raise RecipeError(
            f"phases.classes names {listed(map(shown, unknown))}, which no row has as its label."
            f"{hint} The labels are {listed(map(shown, labels), 20)}."
        )
    twice = [label for label in labels if grouped.count(label) > 1]
    if twice:
        raise RecipeError(
            f"phases.classes names {listed(map(shown, twice))} more than once. A label is new in "
            "one phase only: keep it in one group."
        )
    left_out = [label for label in labels if label not in grouped]
    if left_out:
        raise RecipeError(
            f"phases.classes leaves out {listed(map(shown, left_out))}. Put each label into a "
            "group, or take its rows out of the data."
        )


def _check_values(values: Sequence[str], column: str, where: str) -> None:
    if len(values) < 2:
        raise RecipeError(
            f"The column {shown(column)} of {where} has only the value {shown(values[0])}, which "
            "makes one phase. Name a column with several values with phases.column=NAME, or leave "
            "phases out."
        )
    if len(values) > _MOST:
        raise RecipeError(
            f"The column {shown(column)} of {where} has {len(values):,} different values, such as "
            f"{listed(map(shown, values[:3]))}, and each would be a phase; {_MOST} are the most. "
            "Name a coarser column with phases.column=NAME, for example months rather than days."
        )


def _in_order(values: set[str]) -> list[str]:
    """Sort values as dates if all of them are, as numbers if all of them are, else as text.

    Numbers within a text count as numbers: ``week 9`` comes before ``week 10``.
    """
    orders = {tuple(_sorted_by(_date(form), values)) for form in _DATES} - {()}
    if len(orders) > 1:
        raise RecipeError(
            f"Dates such as {shown(min(values))} can be read with the day or with the month first, "
            "and that changes the order of the phases. Write the column of phases.column as "
            "2024-12-31."
        )
    if orders:
        return list(orders.pop())
    return _sorted_by(float, values) or _sorted_by(_natural, values)


def _sorted_by(key: Callable[[str], Any], values: set[str]) -> list[str]:
    """Return the values in the order of a key, or none if one of them has no such key."""
    try:
        return sorted(sorted(values), key=key)
    except ValueError:
        return []


def _date(form: str) -> Callable[[str], datetime]:
    return lambda value: datetime.strptime(value, form)


def _natural(value: str) -> list[str | int]:
    parts = re.split(r"(\d+)", value)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
