"""Texts without labels: read from a file or a data set, and made of the training texts.

What is read or made here is for a teacher to answer. Nothing of it says what a validation or test
row says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING

from export.edge import PAIR
from recipes import assets
from recipes.augmentations import Source, Variant, rows, variants
from recipes.console import say
from recipes.errors import RecipeError
from recipes.imbalance import copies_of
from recipes.recipe import TrainSettings
from recipes.tasks import Split
from recipes.tasks.columns import choose_pair, joined, only_text
from recipes.tasks.tables import read_table
from recipes.workspace import Workspace

if TYPE_CHECKING:
    from pandas import DataFrame

#: Splits of a data set by name whose texts are left alone: others report on them.
_REPORTED = ("validation", "test")


def plain_texts(work: Workspace, name: str, limit: int | None = None) -> list[str]:
    """Read texts that have no labels, or whose labels are not looked at.

    Args:
        work: The run, whose validation and test rows are taken out.
        name: A file, or a data set by name.
        limit: How many to draw, by the run's seed; None for all, in their order.

    Raises:
        RecipeError: They cannot be read, have no column of texts, or none is left.
    """
    kept, found = _read(work, name)
    if len(kept) < found:
        say(f"  {name}: {found - len(kept):,} of {found:,} texts are blank, too long, repeated or "
            "among the validation and test rows, and left out")  # fmt: skip
    return (
        kept
        if limit is None or limit >= len(kept)
        else Random(work.recipe.seed).sample(kept, limit)
    )


def check_texts(work: Workspace) -> None:
    """Check that all plain texts that the recipe names can be read.

    Raises:
        RecipeError: They cannot; see `plain_texts`.
    """
    settings = work.recipe.distill
    named = [settings.text, settings.imitate.text if settings.imitate is not None else None]
    for name in dict.fromkeys(name for name in named if name is not None):
        _read(work, name)


def more_texts(work: Workspace) -> list[str]:
    """Return all texts besides the training rows that the teacher is to answer, in a fixed order.

    Raises:
        RecipeError: They cannot be read or made.
    """
    settings, train = work.recipe.distill, work.rows.train.texts
    found: list[str] = []
    if settings.text is not None:
        found += plain_texts(work, settings.text)
    if settings.augment:
        made = rows(train, settings.augment, settings.copies, work.recipe.seed, source(work, train))
        say(f"  {len(made):,} new texts made of {len(train):,} training texts")
        found += made
    held_out = [*work.rows.validation.texts, *work.rows.test.texts]
    return without(dict.fromkeys(found), [*train, *held_out])


def training_rows(work: Workspace, settings: TrainSettings, rows: Split | None = None) -> Split:
    """Return the training rows, and after them what a training makes of them.

    Args:
        work: The run.
        settings: The training, whose augmentations are used.
        rows: A part of the training rows, where the others are not to be learnt from; None for all.
    """
    rows = work.rows.train if rows is None else rows
    if not settings.augment:
        return rows
    made = _made(work, settings, rows)
    parts = (work.rows.train, work.rows.validation, work.rows.test)
    there = {_said(text) for part in parts for text in part.texts}
    made = [variant for variant in made if _said(variant.text) not in there]
    say(f"  {len(made):,} new rows made of {len(rows):,} training rows")
    return Split(
        [*rows.texts, *(variant.text for variant in made)],
        [*rows.labels, *(rows.labels[variant.origin] for variant in made)],
    )


def origins(work: Workspace) -> dict[str, int]:
    """Return the training row of each training text and of each text that is made of one.

    Those are counted that the student learns from: `distill.augment` and `distill.train.augment`.
    What joins two texts counts as made of the one that it begins with.
    """
    settings, train = work.recipe.distill, work.rows.train.texts
    made: list[Variant] = []
    if settings.augment:
        drawn_from = source(work, train)
        made += variants(train, settings.augment, settings.copies, work.recipe.seed, drawn_from)
    if settings.train.augment:
        made = [*_made(work, settings.train, work.rows.train), *made]
    known = {text: row for row, text in enumerate(train)}
    return {variant.text: variant.origin for variant in made} | known


def _made(work: Workspace, settings: TrainSettings, rows: Split) -> list[Variant]:
    """Return what a training makes of some rows."""
    seed = work.recipe.seed
    copies = copies_of(work.problem, settings, rows, seed)
    return variants(rows.texts, settings.augment, copies, seed, source(work, rows.texts))


def source(work: Workspace, texts: Sequence[str]) -> Source:
    """Return what augmentations may draw from: training texts and the backbone."""
    return Source(
        texts,
        tokenizer=lambda: work.tokenizer,
        embeddings=lambda: work.load().get_input_embeddings().weight,
        pairs=work.task.pairs,
    )


def without(texts: Iterable[str], others: Sequence[str]) -> list[str]:
    """Return the texts that are not blank and say nothing that one of the others says.

    Case, punctuation and spaces do not count.
    """
    taken = {_said(other) for other in others}
    return [text for text in texts if text.strip() and _said(text) not in taken]


def _said(text: str) -> str:
    # One character may be written as several: NFKC is the same for all ways.
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
    return "".join(words) if words else text.strip()


def _read(work: Workspace, name: str) -> tuple[list[str], int]:
    """Return the texts that may be learnt from, and how many there are in all."""
    asset = assets.resolve(name, "data", offline=work.offline)
    if asset.path.is_file():
        frames = {"all": read_table(asset.path)}
    else:
        frames = {k: f for k, f in assets.rows(asset).items() if k not in _REPORTED}
    found = [text for frame in frames.values() for text in _texts(frame, name, work)]
    held = [*work.rows.validation.texts, *work.rows.test.texts]
    if work.task.pairs:  # nor is half of one learnt from
        held += [part for text in held for part in text.split(PAIR)]
    kept = without(dict.fromkeys(found), held)
    if not kept:
        raise RecipeError(
            f"{name} has no text to learn from besides those of the validation and test rows. "
            "Name another file or data set."
        )
    return kept, sum(len(frame) for frame in frames.values())


def _texts(frame: DataFrame, name: str, work: Workspace) -> list[str]:
    """Return the texts of a table: single ones, or pairs where it has them and rows are pairs."""
    settings = work.recipe.data
    given, pair = (
        column if column in frame.columns else None for column in (settings.text, settings.pair)
    )
    if work.task.pairs:
        first, second, _ = choose_pair(frame, given, pair, name)
        if first is not None and second is not None:
            frame, given = joined(frame, first, second), first
    column = given or only_text(frame, name)
    longest = settings.max_characters
    values = frame[column].tolist()
    return [value for value in values if isinstance(value, str) and len(value) <= longest]
