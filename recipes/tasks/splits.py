"""Part cleaned rows into train, validation and test, with no text in two of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from recipes.errors import RecipeError
from recipes.tasks.columns import folded, label_names
from recipes.tasks.phases import by_first_phase, check_phases, phase_notes, repeated, strata
from recipes.tasks.targets import check_targets
from recipes.tasks.wording import agree, counted, listed, row_names, shown

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: Rows that a group needs to have its share of every split.
_FEWEST = 3
_CALLED = {
    "all": "the data",
    "train": "the training data",
    "validation": "the validation data",
    "test": "the test data",
}


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows to learn from, to choose by and to report on.

    Attributes:
        train: Columns ``text`` and ``label`` (the name) and, if there are phases, ``phase`` (its
            place in `phases`); the index still holds the person's own row numbers.
        validation: Likewise.
        test: Likewise.
        labels: Every label name, in the order that label ids follow; empty where it is not that
            of their names.
        notes: What was removed or looks odd, to be shown to the person.
        phases: Names of the phases in which the rows arrive.
    """

    train: DataFrame
    validation: DataFrame
    test: DataFrame
    labels: list[str]
    notes: list[str]
    phases: Sequence[str] = ()


def split(
    frames: Mapping[str, DataFrame],
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    overlap: Literal["remove", "refuse"],
    names: Mapping[str, str] | None = None,
    phases: Sequence[str] = (),
    problem: str = "single_label",
) -> Splits:
    """Remove exact duplicates, keep given splits apart, and draw the missing ones by class.

    A split that is not given is drawn from the training rows with scikit-learn's stratified
    ``train_test_split``: first the test split, then the validation split from what is left. A text
    of a given test split is not left in the other two, nor one of validation in train. With phases,
    a text stays in its earliest phase, and each phase has its share of every drawn split.

    Args:
        frames: Cleaned frames: ``all``, or ``train`` and any of ``validation`` and ``test``. With
            phases they have a column ``phase``, places in ``phases``.
        test_fraction: Share of the training rows drawn for testing.
        validation_fraction: Share of what is then left, drawn for validation.
        seed: Seed of both draws.
        overlap: Whether texts that two given splits share leave the one that is learned from or
            stop everything.
        names: What each frame is called in messages, usually its file.
        phases: Names of the phases in which the rows arrive, if they do.
        problem: What kind of answer the rows have. Where they are not about single classes, frames
            have a column ``group``, of which each drawn split has its share.

    Raises:
        RecipeError: The rows cannot be parted as asked: splits overlap (and are refused), there is
            only one class, a class is too small, a label is unknown to training, a fraction leaves
            too few rows, or a phase is not in every split.
    """
    log = _Log({**_CALLED, **(names or {})})
    if "all" in frames:
        frames = {"train": frames["all"]}
        log.called["train"] = log.called["all"]
    if "train" not in frames:
        raise RecipeError(
            f"There are no rows to learn from, only {listed(log.called[name] for name in frames)}. "
            "Name a data set with a train split, or files with data.train."
        )
    parts = {name: _unique(frame, name, log) for name, frame in frames.items()}
    for kept, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        if kept in parts and other in parts:
            parts[other] = _without_shared(parts[kept], parts[other], (kept, other), overlap, log)
    classes = problem in ("single_label", "ordinal")
    if classes:
        _check_labels(parts, log)
    given = {name: log.called[name] for name in parts}
    for name, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if name not in parts:
            parts["train"], parts[name] = _draw(parts, name, fraction, seed, log)
    labels = label_names(parts["train"]["label"]) if problem == "single_label" else []
    if classes:
        _note_odd_labels(parts, label_names(parts["train"]["label"]), log)
    else:
        log.notes += check_targets(problem, parts, log.called)
    if phases:
        check_phases(parts, phases, given)
        labels = by_first_phase(labels, parts["train"])
        log.notes += phase_notes(parts, phases)
    return Splits(**parts, labels=labels, notes=log.notes, phases=phases)


def fingerprint(splits: Splits) -> str:
    """Return the sha256 of all texts, labels and phases in order, to notice changed data."""
    columns = ("text", "label", "phase") if splits.phases else ("text", "label")
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
        frame: DataFrame = getattr(splits, name)
        digest.update(f"{name} {len(frame)}\n".encode())
        for column in columns:
            for value in frame[column].tolist():
                data = str(value).encode()
                digest.update(b"%d:%b" % (len(data), data))
    return digest.hexdigest()


@dataclass
class _Log:
    """What splitting has to tell: how it calls the frames, what it noted so far."""

    called: dict[str, str]
    notes: list[str] = field(default_factory=list)


def _unique(frame: DataFrame, name: str, log: _Log) -> DataFrame:
    """Keep the first of rows with the same text, in the earliest phase that has it."""
    again = repeated(frame)
    if not again.any():
        return frame
    first = frame[~again]
    kept_label = frame["text"].map(dict(zip(first["text"], first["label"], strict=True)))
    contrary = frame[frame["label"] != kept_label]
    note = (
        f"Removed {counted(int(again.sum()), 'duplicate')} from the {len(frame):,} rows of "
        f"{log.called[name]}, keeping the first of each text"
        + " in its earliest phase"
        * ("phase" in frame)
    )
    if len(contrary):
        note += (
            f"; {len(contrary):,} of them had another label than the row that was kept "
            f"({row_names(frame, contrary.index)})"
        )
    log.notes.append(f"{note}.")
    return first


def _without_shared(
    kept: DataFrame,
    other: DataFrame,
    names: tuple[str, str],
    overlap: Literal["remove", "refuse"],
    log: _Log,
) -> DataFrame:
    """Take the rows whose text ``kept`` has, too, out of ``other``."""
    shared = other["text"].isin(kept["text"])
    count = int(shared.sum())
    if not count:
        return other
    kept_name, other_name = (log.called[name] for name in names)
    rows = row_names(other, other.index[shared])
    found = (
        f"{counted(count, 'text')} of {other_name} also occur{'s' * (count == 1)} in {kept_name}"
    )
    if overlap == "refuse":
        raise RecipeError(
            f"{found}, for example {shown(other.loc[shared, 'text'].iloc[0])} ({rows} of "
            f"{other_name}). Take them out of one of both, or set data.overlap=remove to leave "
            f"them out of {other_name}."
        )
    if count == len(other):
        spare = names[0] if names[1] == "train" else names[1]
        raise RecipeError(
            f"Every text of {other_name} also occurs in {kept_name}, so none is left. Name another "
            f"file as data.{names[0]} or data.{names[1]}, or leave data.{spare} out to have that "
            f"split drawn from the training rows."
        )
    log.notes.append(f"{found}: removed from {other_name} ({rows}).")
    return other[~shared]


def _check_labels(parts: Mapping[str, DataFrame], log: _Log) -> None:
    """Refuse a single class, and labels that no training row has."""
    labels = label_names(parts["train"]["label"])
    if len(labels) < 2:
        raise RecipeError(
            f"All {counted(len(parts['train']), 'row')} of {log.called['train']} have the label "
            f"{shown(labels[0])}. A classifier needs at least two classes: add rows of another "
            f"one, or name another column with data.label=NAME."
        )
    for name in ("validation", "test"):
        if name in parts:
            unknown = parts[name][~parts[name]["label"].isin(labels)]
            if len(unknown):
                raise RecipeError(_unknown_labels(unknown, name, labels, log))


def _unknown_labels(unknown: DataFrame, name: str, labels: list[str], log: _Log) -> str:
    found = [
        f"{shown(label)} ({row_names(unknown, rows.index)})"
        for label, rows in unknown.groupby("label")
    ]
    return (
        f"No row of {log.called['train']} has the label of {counted(len(unknown), 'row')} of "
        f"{log.called[name]}: {listed(found, 5)}. Known from training: "
        f"{listed(map(shown, labels))}. Add training rows with the label, correct it, or take the "
        f"rows out of {log.called[name]}."
    )


def _draw(
    parts: Mapping[str, DataFrame], name: str, fraction: float, seed: int, log: _Log
) -> tuple[DataFrame, DataFrame]:
    """Draw one split from the training rows, each class in its share; return what is left, too."""
    import pandas as pd
    from sklearn.model_selection import train_test_split

    rows = parts["train"]
    groups = _shared(rows, fraction) if "group" in rows else strata(rows, fraction)
    # Classes that several phases share may be left with one row by the first draw: it stays.
    if "group" not in rows and (name == "test" or groups.equals(rows["label"])):
        # One row for each split that is still to be held by the class.
        _check_classes(rows, 2 + (name == "test" and "validation" not in parts), name, log)
    _check_fraction(rows, groups, name, fraction, log)
    free, bound = rows[groups.notna()], rows[groups.isna()]
    if free.empty:
        return rows, free
    rest, drawn = train_test_split(
        free, test_size=fraction, random_state=seed, stratify=groups.dropna().tolist()
    )
    if len(bound):
        rest = pd.concat([rest, bound])
        log.notes.append(
            f"{counted(len(bound), 'row')} with a label that is rare in its phase "
            f"stay{'s' * (len(bound) == 1)} out of the {name} split."
        )
    lost = sorted(set(rows["label"]) - set(rest["label"]))
    if lost and "group" not in rows:
        raise RecipeError(
            f"data.{name}_fraction={fraction} takes every row of {listed(map(shown, lost))} out of "
            f"{log.called['train']}. Lower it or add rows of these classes."
        )
    return rest, drawn


def _check_classes(rows: DataFrame, needed: int, name: str, log: _Log) -> None:
    """Refuse classes that are too small to be in every split."""
    counts = Counter(rows["label"])
    rare = sorted(label for label, count in counts.items() if count < needed)
    if rare:
        found = listed((f"{shown(label)} ({counts[label]})" for label in rare), 5)
        left = " left" if name == "validation" else ""
        raise RecipeError(
            f"{len(rare):,} of the {len(counts):,} classes of {log.called['train']} "
            f"{agree(len(rare), 'have')} too few rows{left}: {found}. To draw the {name} split, "
            f"each class needs at least {needed} different texts. Add rows, or leave such classes "
            f"out with data.min_rows={needed}; if these are no classes at all, name another column "
            "with data.label=NAME, or set data.problem=regression for numbers."
        )


def _shared(rows: DataFrame, fraction: float) -> Series:
    """Return the rows' groups; those of too few rows to be in every split join another.

    There is one for all rows if a split has fewer rows than there are groups.
    """
    groups = rows["group"]
    sizes = groups.value_counts()
    if len(sizes) > len(rows) * min(fraction, 1 - fraction):
        return groups.where(groups.isna(), "")
    few = groups.map(sizes) < _FEWEST
    return groups.where(~few, "" if few.sum() >= _FEWEST else sizes.index[0])


def _check_fraction(rows: DataFrame, groups: Series, name: str, fraction: float, log: _Log) -> None:
    """Refuse a fraction that leaves either side fewer rows than there are classes."""
    key = f"data.{name}_fraction={fraction}"
    if not 0 < fraction < 1:
        raise RecipeError(f"{key} must lie between 0 and 1, for example 0.2.")
    classes = groups.nunique()
    drawn = math.ceil(fraction * len(rows))
    if min(drawn, len(rows) - drawn) < classes:
        share = math.ceil(100 * classes / len(rows)) / 100
        way = f"Raise it to {share:.2f}" if drawn < classes else f"Lower it to {1 - share:.2f}"
        raise RecipeError(
            f"{key} would put {drawn:,} of {len(rows):,} rows of {log.called['train']} into the "
            f"{name} split and leave {len(rows) - drawn:,}, but each side needs at least one row "
            f"for each of the {classes:,} classes. {way}, or add rows."
        )


def _note_odd_labels(parts: Mapping[str, DataFrame], labels: list[str], log: _Log) -> None:
    """Note classes that a split lacks, and names that look alike."""
    for name in ("validation", "test"):
        lacking = sorted(set(labels) - set(parts[name]["label"]))
        if lacking:
            they = listed(map(shown, lacking))
            log.notes.append(
                f"No row of {log.called[name]} has the label {they}: figures there say nothing "
                f"about {'it' if len(lacking) == 1 else 'them'}."
            )
    seen = Counter(map(folded, labels))
    alike = [label for label in labels if seen[folded(label)] > 1]
    if alike:
        log.notes.append(
            f"These labels differ only in case, blanks or what is not seen, and count as different "
            f"classes: {listed(map(shown, alike))}."
        )
