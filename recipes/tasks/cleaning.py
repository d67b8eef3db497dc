"""From raw tables to texts and labels: which columns they are in, and what kind of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.tasks.columns import (
    check_column,
    choose_columns,
    choose_pair,
    clean,
    joined,
    values_of,
)
from recipes.tasks.kinds import find_problem
from recipes.tasks.slices import with_slices
from recipes.tasks.targets import groups, namer, without_rare
from recipes.tasks.wording import agree, counted, shown

if TYPE_CHECKING:
    from pandas import DataFrame

    from recipes.recipe import DataSettings

#: Columns of the catalogue's own data, which are known: there is nothing to guess and to say.
KNOWN = (["text", "label"], ["text", "pair", "label"])


@dataclass(frozen=True, eq=False)
class Cleaned:
    """Usable rows of all tables.

    Attributes:
        frames: By key; columns ``text``, ``label`` (one string, see `recipes.tasks.targets.namer`),
            ``group`` where splits are not drawn by label, and ``phase`` if a column names it.
        problem: What kind of answer the rows have.
        pairs: Whether texts are pairs, with a tab between them.
        label: What the label column is called.
        notes: What was guessed and left out.
    """

    frames: dict[str, DataFrame]
    problem: str
    pairs: bool
    label: str
    notes: list[str]


@dataclass(frozen=True)
class _Columns:
    """Where a table has what it has; `label` is the first, if labels have columns of their own."""

    text: str
    pair: str | None
    label: str
    notes: Sequence[str]


def cleaned(
    frames: Mapping[str, DataFrame],
    names: Mapping[str, str],
    settings: DataSettings,
    phase: str | None,
) -> Cleaned:
    """Find texts and labels in raw tables and weed out unusable rows.

    Args:
        frames: The tables: ``all``, or ``train`` and further ones.
        names: What each is called in messages.
        settings: Which columns, which problem, and what to do with unusable rows.
        phase: The column that names the phase of each row, if there is one.

    Raises:
        RecipeError: A column is missing, a guess is not safe, or rows cannot be used.
    """
    columns = {key: _columns(frame, settings, names[key], phase) for key, frame in frames.items()}
    first = next(iter(frames))
    values = _values(frames[first], columns[first], settings)
    problem, notes = find_problem(values, columns[first].label, settings, names[first])
    name = namer(problem, settings)
    found: dict[str, DataFrame] = {}
    for key, frame in frames.items():
        own, where = columns[key], names[key]
        notes += [note for note in own.notes if note not in notes]
        if key in ("validation", "test") and frame[own.label].isna().all():
            notes.append(f"{where} has no labels and is left out")
            continue
        if phase is not None:
            check_column(frame, phase, "phases.column", where)
        # Lists where a word is wanted are told by `clean`, which names their rows.
        plain = problem in ("single_label", "ordinal")
        labels = None if plain else name(_values(frame, own, settings), where, frame)
        if settings.separator is not None and (bare := int(frame[own.label].isna().sum())):
            notes.append(
                f"{counted(bare, 'row')} of {where} with an empty {shown(own.label)} "
                f"{agree(bare, 'have')} none of the labels."
            )
        whole = joined(frame, own.text, own.pair) if own.pair is not None else frame
        found[key], dropped = clean(
            whole, own.text, own.label, where, settings.invalid_rows, settings.max_characters,
            phase, labels,
        )  # fmt: skip
        found[key] = with_slices(found[key], frame, settings.slices, where)
        notes += [note for note in dropped if note not in notes]
    if settings.min_rows is not None:
        _check_rare(problem, settings)
        found, left = without_rare(found, problem, settings, names)
        notes += left
    if problem in ("multi_label", "regression"):
        found = {
            key: frame.assign(group=groups(problem, frame["label"], frame))
            for key, frame in found.items()
        }
    pairs = columns[first].pair is not None
    return Cleaned(found, problem, pairs, columns[first].label, notes)


def _check_rare(problem: str, settings: DataSettings) -> None:
    """Refuse what cannot be done to rare labels of a problem that was found in the data."""
    if problem == "regression":
        raise RecipeError(
            f"data.min_rows={settings.min_rows} is for labels, and these are numbers. Leave it "
            "out, or set data.problem=single_label."
        )
    if problem == "ordinal" and settings.rare == "merge":
        raise RecipeError(
            "data.rare=merge makes one label of several, and these have an order, in which it "
            "has no place. Take data.rare=drop, or set data.problem=single_label."
        )


def _columns(frame: DataFrame, settings: DataSettings, where: str, phase: str | None) -> _Columns:
    known = list(frame.columns) in KNOWN
    text, pair, notes = choose_pair(frame, settings.text, settings.pair, where)
    label = settings.label
    if isinstance(label, tuple):
        for column in label:
            check_column(frame, column, "data.label", where)
        label = label[0]
    text, label, guessed = choose_columns(
        frame,
        text or ("text" if known else None),
        label or ("label" if known else None),
        where,
        (pair, phase, *settings.slices),
    )
    return _Columns(text, pair, label, [*(() if known else notes), *guessed])


def _values(frame: DataFrame, columns: _Columns, settings: DataSettings) -> list[Any]:
    if isinstance(settings.label, tuple):
        return list(zip(*(values_of(frame[name]) for name in settings.label), strict=True))
    return values_of(frame[columns.label])
