"""Which rows are learnt from, and how they are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from recipes.recipe.base import Fraction, Positive, Seed, Settings


class LongSettings(Settings):
    """How a text longer than `DataSettings.max_length` is read, in training and at the edge.

    Attributes:
        way: ``head`` cuts it on the right; ``head_tail`` keeps a quarter of the room for its
            beginning and the rest for its end; ``windows`` reads it in overlapping windows, each
            of `DataSettings.max_length` tokens.
        stride: How many tokens neighboring windows share.
        pool: How the logits of the windows become those of the text: their mean, the highest of
            each label, or the mean weighted by attention, which learns without a weight of its own
            (see `export.edge.pooled`) and is for one of several labels only.
        most: With more windows than this, so many are read, spread evenly over the text; null for
            all of them.
        train_windows: How many windows of a text a step of training reads, drawn anew in each
            epoch; null for all of them.
    """

    way: Literal["head", "head_tail", "windows"] = "head"
    stride: Annotated[int, Field(ge=0)] = 64
    pool: Literal["mean", "max", "attention"] = "mean"
    most: Positive | None = 16
    train_windows: Positive | None = 2

    @model_validator(mode="after")
    def _windows_are_read(self) -> LongSettings:
        for name, field in type(self).model_fields.items() if self.way != "windows" else ():
            if name != "way" and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name} has no effect with way={self.way}. Set way=windows, or leave it out"
                )
        return self


class DataSettings(Settings):
    """Which rows to learn from, and how they are split.

    Attributes:
        source: Name of a data set: from the catalogue, or ``hub:owner/name``.
        train: File to learn from (CSV, TSV, JSONL or Parquet), instead of `source`.
        validation: File to choose models on; without it a part of the training rows.
        test: File to report on; without it a part of the rows.
        text: Column with the text; guessed where it is obvious.
        pair: Column with a second text, where rows are pairs of texts (does one follow from the
            other, do they say the same); guessed from well-known couples of names.
        label: Column with the label, guessed where it is obvious; or several columns that say with
            0 and 1 which labels a text has.
        problem: What kind of answer a row has: one of several labels, any number of them, one of
            several that have an order, or a number. By default it is found from the labels.
        separator: What parts the labels of a text that has several in one column.
        order: The labels from low to high, where they have an order and are no numbers.
        min_rows: Rows that a label needs, before splits are drawn, and of them one of another text
            for each split that it has to be in; null for what the splits need.
        rare: What becomes of rows whose label has fewer: they are left out, or their labels become
            one, called ``other``.
        test_fraction: Share of all rows that becomes the test split, stratified by label.
        validation_fraction: Share of the remaining rows that becomes the validation split.
        fraction: Share of the training rows that is learnt from, of each class alike and at least
            one row; a smaller share is a part of a larger one. Validation and test split stay.
        per_class: So many labelled rows of each class are there for a training, as if nobody had
            labelled more: of them `validation_fraction`, at least one, becomes the validation
            split, the others are learnt from. The test split stays.
        draw_seed: Seed of what `fraction` and `per_class` draw; null for `Recipe.seed`, so that
            runs with several seeds learn from other rows.
        split_seed: Seed of the splits; kept apart from `Recipe.seed`, so that runs with several
            seeds are compared on the same test rows.
        overlap: What to do with texts of the test split that also occur in a file to learn from.
        invalid_rows: What to do with rows without text or label, or with too long a text.
        max_characters: Length from which a text counts as broken (an unclosed quote, usually).
        max_length: Length in tokens that is read at once; by default the backbone's own limit, at
            most 256.
        long: How longer texts are read.
        slices: Columns by whose values the results are shown too: the language of a text, say, or
            where it is from. Numbers are cut into quarters.
    """

    source: str | None = None
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    problem: Literal["auto", "single_label", "multi_label", "ordinal", "regression"] = "auto"
    separator: Annotated[str, Field(min_length=1)] | None = None
    order: Annotated[tuple[str | int | float, ...], Field(strict=False, min_length=2)] | None = None
    min_rows: Annotated[int, Field(ge=2)] | None = None
    rare: Literal["drop", "merge"] = "drop"
    test_fraction: Fraction = 0.2
    validation_fraction: Fraction = 0.1
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    per_class: Annotated[int, Field(ge=2)] | None = None
    draw_seed: Seed | None = None
    split_seed: Seed = 0
    overlap: Literal["remove", "refuse"] = "remove"
    invalid_rows: Literal["refuse", "drop"] = "refuse"
    max_characters: Positive = 100_000
    max_length: Annotated[int, Field(ge=4)] | None = None
    slices: Annotated[tuple[str, ...], Field(strict=False)] = ()
    long: LongSettings = LongSettings()

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.source is None) == (self.train is None):
            raise ValueError("give either source (a data set by name) or train (a file)")
        if self.source is not None and (self.validation or self.test):
            raise ValueError("validation and test files go with train, not with source")
        return self

    @model_validator(mode="after")
    def _drawn_once(self) -> DataSettings:
        if self.per_class is not None:
            if self.fraction != 1:
                raise ValueError("give either fraction or per_class (so many rows of each class)")
            if self.validation is not None:
                raise ValueError(
                    "per_class takes the validation rows out of the few that it leaves, so that "
                    "a validation file has no effect. Leave one of them out"
                )
        elif self.draw_seed is not None and self.fraction == 1:
            raise ValueError(
                "draw_seed has no effect where all rows are learnt from: set fraction or "
                "per_class, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> DataSettings:
        several, ordered = self.problem in ("auto", "multi_label"), self.problem in (
            "auto", "ordinal",
        )  # fmt: skip
        if not several and (self.separator is not None or isinstance(self.label, tuple)):
            raise ValueError(
                f"separator and a list of label columns are for texts with several labels, and "
                f"problem={self.problem}. Leave one of them out"
            )
        if self.order is not None and (not ordered or self.separator is not None):
            raise ValueError("order is for problem=ordinal, in which a text has one label")
        if self.min_rows is None and self.rare != "drop":
            raise ValueError("rare has no effect without min_rows. Leave it out, or set min_rows=5")
        if self.min_rows is not None and self.problem == "regression":
            raise ValueError("min_rows is for labels, and problem=regression. Leave it out")
        if self.separator is not None and isinstance(self.label, tuple):
            raise ValueError("separator is for one column of labels, and label names several")
        return self


_Labels = Annotated[tuple[str | int | float | bool, ...], Field(strict=False, min_length=1)]


def _in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"{value!r} is neither a number of phases, at least 2, nor two or more groups of "
            "labels, such as [[red, green], [blue]]"
        ) from None


#: How many phases of new classes, or the labels of each.
NewClasses = Annotated[
    Annotated[int, Field(ge=2)] | Annotated[tuple[_Labels, ...], Field(strict=False, min_length=2)],
    WrapValidator(_in_one_sentence),
]


class PhasesSettings(Settings):
    """How the rows part into phases that are learned one after another.

    Attributes:
        classes: New classes in each phase: the labels in this many groups of like size, or the
            groups themselves.
        column: Column of the data of which each value is a phase, in natural order: months, for
            example.
        files: Files to learn from after `DataSettings.train`, each of them a phase.
    """

    classes: NewClasses | None = None
    column: str | None = None
    files: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> PhasesSettings:
        if [self.classes, self.column, self.files].count(None) != 2:
            raise ValueError(
                "give exactly one of classes (a number or groups of labels), column (each value "
                "is a phase) and files (further files to learn from)"
            )
        return self
