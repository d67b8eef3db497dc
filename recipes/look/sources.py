"""Where a recipe's rows lie, and which of their columns are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.rows import WINDOW_ROWS
from recipes.look.examples import Columns
from recipes.look.findings import Origin
from recipes.look.reading import Raw, Troubles, read_windows, unit_of
from recipes.recipe import Recipe
from recipes.tasks.cleaning import KNOWN
from recipes.tasks.columns import check_column, choose_columns, choose_pair

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass
class Source:
    """One table.

    Attributes:
        origin: What its rows are called.
        path: The file; None for a table that is in memory already.
        frame: That table.
        troubles: What is wrong with the file, once it was read.
    """

    origin: Origin
    path: Path | None = None
    frame: DataFrame | None = None
    troubles: Troubles = field(default_factory=Troubles)

    def windows(self, seen: Callable[[int], object]) -> Iterator[list[Raw]]:
        """Yield the rows in windows; see `read_windows`."""
        if self.path is not None:
            yield from read_windows(self.path, self.origin, self.troubles, seen)
        elif self.frame is not None:
            yield from _frame_windows(self.frame)


def sources_of(recipe: Recipe, offline: bool) -> tuple[list[Source], str]:
    """Return the tables that a recipe names, those to learn from first, and what to call them all.

    Args:
        recipe: The recipe.
        offline: Never touch the network.

    Raises:
        RecipeError: The data set cannot be had.
    """
    from recipes import assets

    settings = recipe.data
    if settings.source is None:
        later = (recipe.phases and recipe.phases.files) or ()
        files = [(settings.train, "train"), *((file, "train") for file in later)]
        files += [(settings.validation, "validation"), (settings.test, "test")]
        found = [_file(Path(name), split) for name, split in files if name is not None]
        return found, ", ".join(source.origin.name for source in found)
    asset = assets.resolve(settings.source, "data", offline=offline)
    if asset.path.is_file():
        return [_file(asset.path, "train")], asset.source
    splits = {"all": "train", "train": "train", "validation": "validation", "test": "test"}
    return [
        Source(
            Origin(f"{settings.source} ({key})", splits[key], str(frame.index.name or "row")),
            frame=frame,
        )
        for key, frame in assets.rows(asset).items()
        if key in splits
    ], asset.source


def columns_of(window: list[Raw], source: Source, recipe: Recipe) -> Columns:
    """Return where a table has its texts and labels.

    Args:
        window: The first rows.
        source: What they are from.
        recipe: May name the columns.

    Raises:
        RecipeError: A column is not there, or no guess is safe.
    """
    from pandas import DataFrame

    settings = recipe.data
    names = list(dict.fromkeys(name for _, row in window for name in row))
    if len(names) == 1 and settings.label is None and settings.text in (None, names[0]):
        return Columns(names[0])
    values = {name: [row.get(name) for _, row in window] for name in names}
    frame = DataFrame(values, columns=names, dtype=object)
    known, where = names in KNOWN, source.origin.name
    text, pair, _ = choose_pair(frame, settings.text, settings.pair, where)
    ticked = settings.label if isinstance(settings.label, tuple) else ()
    for name in ticked:
        check_column(frame, name, "data.label", where)
    given = ticked[0] if ticked else str(settings.label) if settings.label is not None else None
    phase = recipe.phases.column if recipe.phases is not None else None
    found, label, _ = choose_columns(
        frame,
        text or ("text" if known else None),
        given or ("label" if known else None),
        where,
        (pair, phase, *settings.slices),
    )
    return Columns(found, pair, ticked or (label,), settings.separator, ticked=bool(ticked))


def _file(path: Path, split: str) -> Source:
    return Source(Origin(path.name, split, unit_of(path)), path)


def _frame_windows(frame: DataFrame) -> Iterator[list[Raw]]:
    names = [str(name) for name in frame.columns]
    for start in range(0, len(frame), WINDOW_ROWS):
        part = frame.iloc[start : start + WINDOW_ROWS]
        columns = [_values(part.iloc[:, at]) for at in range(len(names))]
        rows = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
        yield list(zip(part.index.tolist(), rows, strict=True))


def _values(column: Any) -> list[Any]:
    gone = column.isna().tolist()
    return [None if no else value for value, no in zip(column.tolist(), gone, strict=True)]
