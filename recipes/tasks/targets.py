"""What the labels of a table are: classes, ordered ones, several at a time, or numbers."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.errors import RecipeError
from recipes.tasks.columns import is_list, label_name, label_names, number, unpacked
from recipes.tasks.wording import agree, counted, listed, row_names, shown

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from recipes.recipe import DataSettings

#: What labels with few rows are called together.
OTHER = "other"
#: Groups of like numbers, each of which has its share of every split.
_BINS = 10
#: Splits that nothing is learnt from.
_HELD = ("validation", "test")
#: Fewer rows than this of a label are no group of their own when splits are drawn.
_FEWEST = 10


def namer(
    problem: str, settings: DataSettings
) -> Callable[[Sequence[Any], str, DataFrame], list[str | None]]:
    """Return what turns the values of the label column into one string a row, None for missing.

    The string is the label's name; of several labels a JSON list of their names, sorted; of a
    number its shortest form.
    """
    if problem == "multi_label":
        return lambda values, where, frame: _several(values, settings, where, frame)
    if problem == "regression":
        return lambda values, where, frame: _numbers(values, where, frame)
    return lambda values, where, frame: [label_name(value) for value in values]


def groups(problem: str, labels: Series, frame: DataFrame) -> Series:
    """Return for each row the group of which each drawn split gets its share.

    Args:
        problem: A name from `recipes.problems`.
        labels: From `namer`, of the rows that splits are drawn from.
        frame: Whose groups to return; rows of other frames have none.
    """
    import pandas as pd

    if problem == "regression":
        values = labels.astype(float)
        bins = min(_BINS, max(1, len(values) // _FEWEST))
        places = (values.rank(method="first") * bins / (len(values) + 1)).astype(int)
        return places.astype(str).reindex(frame.index)
    if problem == "multi_label":
        sets = labels.map(json.loads)
        counts = Counter(label for each in sets for label in each)
        common = {label for label, rows in counts.items() if rows >= _FEWEST}

        def rarest(each: list[str]) -> str:
            return min(common.intersection(each), key=lambda x: (counts[x], x), default="")

        found = sets.map(rarest)
        sizes = found.map(found.value_counts())
        return found.where(sizes >= _FEWEST, "").reindex(frame.index)
    return pd.Series(labels, dtype=object).reindex(frame.index)


def without_rare(
    frames: Mapping[str, DataFrame],
    problem: str,
    settings: DataSettings,
    names: Mapping[str, str],
) -> tuple[dict[str, DataFrame], list[str]]:
    """Leave out labels with too few rows to learn from, or make one label of them.

    Args:
        frames: Cleaned tables: ``all``, or ``train`` and further ones.
        problem: ``single_label``, ``ordinal`` or ``multi_label``.
        settings: Of which `DataSettings.min_rows` and `DataSettings.rare` are used.
        names: What each table is called in messages.

    Returns:
        The tables without them, and notes on what was done.

    Raises:
        RecipeError: No label has so many rows; those that become one have too few together; or no
            row of a table is left.
    """
    several = problem == "multi_label"
    sets = {
        key: frame["label"].map(json.loads) if several else frame["label"].map(lambda x: [x])
        for key, frame in frames.items()
    }
    counts = Counter(
        label for key in frames if key not in _HELD for each in sets[key] for label in each
    )
    if not counts:  # without any label the rows are refused later
        return dict(frames), []
    texts, least = _distinct(frames, sets), settings.min_rows or 0
    # As many as there are splits, each of which has to have a label if a row has only one.
    needed = min(least, 1 if several else 1 + sum(key not in frames for key in _HELD))
    rare = {label for each in sets.values() for row in each for label in row} - {
        label for label, rows in counts.items() if rows >= least and texts[label] >= needed
    }
    if not rare:
        return dict(frames), []
    if rare >= counts.keys():
        label, rows = counts.most_common(1)[0]
        raise RecipeError(
            f"data.min_rows={least}, but no label has so many rows; {shown(label)} has the most, "
            f"{rows:,}. Lower it."
        )
    found, changed = {}, 0
    for key, frame in frames.items():
        kept = sets[key].map(
            lambda row: (
                [label for label in row if label not in rare]
                + ([OTHER] if settings.rare == "merge" and rare.intersection(row) else [])
            )
        )
        hit = sets[key].map(lambda row: bool(rare.intersection(row)))
        changed += int(hit.sum())
        labels = kept.map(
            lambda row: json.dumps(sorted({*row}), ensure_ascii=False) if several else "".join(row)
        )
        whole = frame.assign(label=labels.astype(object))
        found[key] = whole if several else whole[labels != ""]
        if found[key].empty:
            raise RecipeError(
                f"data.min_rows={least} leaves no row of {names[key]}: no label there has so many "
                f"rows to learn from. Lower it, or leave out data.{key}."
            )
    other = sum(texts[label] for label in {*rare, OTHER})
    if settings.rare == "merge" and other < needed:
        raise RecipeError(
            f"data.rare=merge makes one label of {listed(map(shown, sorted(rare)))}, on "
            f"{counted(other, 'different text')} to learn from, and {needed} are needed. Set "
            "data.rare=drop to leave them out, or add rows."
        )
    be = agree(len(rare), "are")
    done = f"{be} {shown(OTHER)} now" if settings.rare == "merge" else f"{be} left out"
    copies = any(counts[label] >= least for label in rare)
    few = f"{least} rows" + f", or {needed} different texts to learn from," * copies
    return found, [
        f"{counted(len(rare), 'label')} of fewer than {few} {done}, in "
        f"{counted(changed, 'row')}: {listed(map(shown, sorted(rare)))}."
    ]


def _distinct(frames: Mapping[str, DataFrame], sets: Mapping[str, Series]) -> Counter[str]:
    """Count the different texts to learn each label from.

    Equal texts become one row later, with the first one's label, and none of a given test or
    validation split is left to learn from.
    """
    held = {text for key in _HELD if key in frames for text in frames[key]["text"]}
    counts: Counter[str] = Counter()
    for key in (key for key in frames if key not in _HELD):
        for text, labels in zip(frames[key]["text"], sets[key], strict=True):
            if text not in held:
                held.add(text)
                counts.update(labels)
    return counts


def output_names(problem: str, train: Series, settings: DataSettings, column: str) -> list[str]:
    """Return the names of a model's outputs, in their order.

    Args:
        problem: A name from `recipes.problems`.
        train: From `namer`, of the training rows.
        settings: Of which `DataSettings.order` orders the labels of an ordinal problem.
        column: The label column, which names a number.

    Raises:
        RecipeError: Labels have an order that is not known.
    """
    if problem == "regression":
        return [column]
    if problem == "multi_label":
        return sorted({label for each in train for label in json.loads(each)})
    names = label_names(train)
    if problem != "ordinal":
        return names
    if settings.order is None:
        if any(number(name) is None for name in names):
            raise RecipeError(
                f"The labels {listed(map(shown, names))} have an order, and it is not known: name "
                "them from low to high, for example data.order=[low,middle,high]."
            )
        return names
    order = [label_name(label) or "" for label in settings.order]
    if settings.min_rows is not None:  # labels of fewer rows are gone
        order = [label for label in order if label in names]
    return _checked_order(order, names)


def encoder(
    problem: str, labels: Sequence[str], train: Series
) -> tuple[Callable[[str], Any], dict[str, Any]]:
    """Return what turns a row's string into its label, and facts for the edge runtime.

    Args:
        problem: A name from `recipes.problems`.
        labels: From `output_names`.
        train: From `namer`, of the training rows.
    """
    ids = {label: index for index, label in enumerate(labels)}
    if problem == "multi_label":

        def several(row: str) -> tuple[int, ...]:
            given = set(json.loads(row))
            return tuple(int(label in given) for label in labels)

        return several, {}
    if problem == "regression":
        values = train.astype(float)
        mean, deviation = float(values.mean()), float(values.std(ddof=0)) or 1.0
        facts = {"scale": {"mean": mean, "deviation": deviation}}
        return (lambda row: (float(row) - mean) / deviation), facts
    return ids.__getitem__, {}


def check_targets(
    problem: str, parts: Mapping[str, DataFrame], called: Mapping[str, str]
) -> list[str]:
    """Check labels of problems that are not about single classes, and note what looks odd.

    Raises:
        RecipeError: There is nothing to tell apart, or labels are unknown to training.
    """
    train = parts["train"]
    if problem == "regression":
        if train["label"].nunique() < 2:
            raise RecipeError(
                f"All numbers of {called['train']} are {train['label'].iloc[0]}: there is nothing "
                "to learn. Name another column with data.label=NAME."
            )
        _check_scale(train, called["train"])
        return []
    sets = {name: part["label"].map(json.loads) for name, part in parts.items()}
    known = {label for each in sets["train"] for label in each}
    if not known:
        raise RecipeError(
            f"No row of {called['train']} has a label. Check data.label and data.separator."
        )
    notes = []
    for name in ("validation", "test"):
        if name not in sets:
            continue
        found = {label for each in sets[name] for label in each}
        if unknown := sorted(found - known):
            raise RecipeError(
                f"No row of {called['train']} has the label {listed(map(shown, unknown), 5)} of "
                f"{called[name]}. Add training rows with it, or take it out of {called[name]}."
            )
        if lacking := sorted(known - found):
            notes.append(
                f"No row of {called[name]} has the label {listed(map(shown, lacking))}: figures "
                f"there say nothing about {'it' if len(lacking) == 1 else 'them'}."
            )
    return notes


def _check_scale(train: DataFrame, called: str) -> None:
    """Refuse numbers whose deviation is no number: in such deviations all of them are alike."""
    import numpy as np

    values = train["label"].to_numpy(dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = values.std()
    if not np.isfinite(deviation):
        row = train.index[np.abs(values).argmax()]
        raise RecipeError(
            f"The numbers of {called} are too far apart to be learnt: from {values.min():g} to "
            f"{values.max():g} ({row_names(train, [row])}). Empty the field where such a number "
            "stands for none, or write logarithms."
        )


def _several(
    values: Sequence[Any], settings: DataSettings, where: str, frame: DataFrame
) -> list[str | None]:
    """Return the labels of each row: of a list, of several columns, or of one that is parted."""
    if isinstance(settings.label, tuple):
        return _ticked(values, settings.label, where, frame)
    found: list[str | None] = []
    for row, value in zip(frame.index, values, strict=True):
        whole = unpacked(value)
        if isinstance(whole, str) and settings.separator:
            whole = whole.split(settings.separator)
        elif whole is None and settings.separator is None:
            found.append(None)
            continue
        each = whole if is_list(whole) else [whole]
        _check_plain(each, row, where, frame)
        names = {name for part in each if (name := label_name(part)) is not None}
        found.append(json.dumps(sorted(names), ensure_ascii=False))
    return found


def _check_plain(values: Sequence[Any], row: Any, where: str, frame: DataFrame) -> None:
    """Refuse labels that are lists or objects themselves."""
    if odd := [
        value for value in values if hasattr(value, "__len__") and not isinstance(value, str)
    ]:
        raise RecipeError(
            f"{shown(odd[0])} is no label, in {row_names(frame, [row])} of {where}: each is one "
            "word or number. Name a column that has such with data.label."
        )


def _ticked(
    values: Sequence[Any], columns: Sequence[str], where: str, frame: DataFrame
) -> list[str | None]:
    yes, no = {"1", "true", "yes"}, {"0", "false", "no"}
    found: list[str | None] = []
    for row, each in zip(frame.index, values, strict=True):
        said = [(label_name(value) or "").lower() for value in each]
        if "" in said:
            found.append(None)
            continue
        if odd := [value for value in said if value not in yes | no]:
            raise RecipeError(
                f"The columns {listed(columns)} of {where} say of each row whether a label "
                f"applies, with 1, true or yes, or with 0, false or no, and "
                f"{row_names(frame, [row])} says {shown(odd[0])}."
            )
        given = [name for name, value in zip(columns, said, strict=True) if value in yes]
        found.append(json.dumps(sorted(given), ensure_ascii=False))
    return found


def _numbers(values: Sequence[Any], where: str, frame: DataFrame) -> list[str | None]:
    found: list[str | None] = []
    for row, value in zip(frame.index, values, strict=True):
        name = None if is_list(value) else label_name(value)
        measured = None if name is None else number(value)
        if (name is not None and measured is None) or is_list(value):
            raise RecipeError(
                f"{shown(value)} is no number, in {row_names(frame, [row])} of {where}, and a "
                "regression learns numbers. Mend it, or set data.problem=single_label."
            )
        found.append(None if measured is None else repr(measured))
    return found


def _checked_order(order: Sequence[str], names: Sequence[str]) -> list[str]:
    unknown = [label for label in order if label not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" Did you mean {shown(near[0])}?" if near else ""
        raise RecipeError(
            f"data.order names {listed(map(shown, unknown))}, which no training row has as its "
            f"label.{hint} The labels are {listed(map(shown, names), 20)}."
        )
    odd = [name for name in names if order.count(name) != 1]
    if odd:
        raise RecipeError(
            f"data.order has to have every label once, from low to high; look at "
            f"{listed(map(shown, odd))}."
        )
    return list(order)
