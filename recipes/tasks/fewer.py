"""Learn from a part of the training rows: how much would fewer labels have cost?

The test split stays as it is, so that runs with more rows and with fewer are compared on it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from recipes.errors import RecipeError
from recipes.tasks import Rows, Split
from recipes.tasks.wording import counted, listed, shown

if TYPE_CHECKING:
    from recipes.recipe import DataSettings

#: Problem types in which each row has exactly one of several classes.
_CLASSES = ("single_label", "ordinal")


def fewer(rows: Rows, settings: DataSettings, seed: int) -> Rows:
    """Return the rows with those to learn from that the settings leave.

    Rows of a class are put into an order that depends on nothing but the seed and the class, and
    the first of them are kept: what is kept of fewer rows is kept of more.

    Args:
        rows: All rows, from `Task.read`.
        settings: Of which `fraction` and `per_class` are used.
        seed: Seed of the order, where the settings name none.

    Raises:
        RecipeError: Rows a class are asked for where there are no classes, or a class has but one.
    """
    if settings.draw_seed is not None:
        seed = settings.draw_seed
    if settings.per_class is not None:
        return _shots(rows, settings.per_class, settings.validation_fraction, seed)
    if settings.fraction == 1:
        return rows
    kept = [
        row
        for group in _ordered(rows, seed).values()
        for row in group[: max(1, round(settings.fraction * len(group)))]
    ]
    return _left(
        rows,
        _part(rows.train, kept),
        rows.validation,
        f"data.fraction={settings.fraction:g}: {len(kept):,} of {len(rows.train):,} training rows "
        f"are learnt from, drawn by seed {seed}",
    )


def _shots(rows: Rows, per_class: int, share: float, seed: int) -> Rows:
    """Take all rows that have a use in training out of so many of each class."""
    if rows.problem not in _CLASSES:
        raise RecipeError(
            "data.per_class is for rows that have one of several classes, and these are of "
            f"another kind ({rows.problem}). Set data.fraction instead."
        )
    learnt: list[int] = []
    chosen: list[int] = []
    short: dict[int, int] = {}
    for (label, _), group in _ordered(rows, seed).items():
        shots = group[:per_class]
        if len(shots) < per_class:
            short[label] = len(shots)
        held = min(max(1, round(share * len(shots))), len(shots) - 1)
        learnt += shots[: len(shots) - held]
        chosen += shots[len(shots) - held :]
    if rare := [rows.labels[label] for label, count in short.items() if count < 2]:
        raise RecipeError(
            f"data.per_class={per_class}, but {listed(map(shown, rare))} has one training row, and "
            "one to learn from and one to choose by are needed. Add rows, or set data.min_rows."
        )
    note = (
        f"data.per_class={per_class}: {len(learnt):,} rows are learnt from and "
        f"{len(chosen):,} chosen by, out of {len(rows.train):,}, drawn by seed {seed}"
    )
    if short:
        has = (f"{shown(rows.labels[label])} ({count})" for label, count in short.items())
        note += f"; {counted(len(short), 'label')} with fewer: {listed(has, 5)}"
    return _left(rows, _part(rows.train, learnt), _part(rows.train, chosen), note)


def _ordered(rows: Rows, seed: int) -> dict[tuple[int, int], list[int]]:
    """Return the training rows by class and phase, each group in an order that chance gives."""
    train = rows.train
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    phases: Iterable[int] = train.phases or (0 for _ in train.texts)
    for row, (label, phase) in enumerate(zip(train.labels, phases, strict=True)):
        groups[label if rows.problem in _CLASSES else 0, phase].append(row)
    for (label, phase), group in groups.items():
        Random(f"{seed} {label} {phase}").shuffle(group)
    return groups


def _part(split: Split, rows: Sequence[int]) -> Split:
    rows = sorted(rows)
    return Split(
        [split.texts[row] for row in rows],
        [split.labels[row] for row in rows],
        [split.phases[row] for row in rows] if split.phases else (),
    )


def _left(rows: Rows, train: Split, validation: Split, note: str) -> Rows:
    digest = hashlib.sha256(
        f"{rows.fingerprint} {train.fingerprint} {validation.fingerprint}".encode()
    )
    return replace(
        rows,
        train=train,
        validation=validation,
        notes=[*rows.notes, note],
        fingerprint=digest.hexdigest(),
    )
