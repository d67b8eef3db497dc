"""Find the text and the label in a table, and turn their rows into texts and label names."""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from export.edge import PAIR
from recipes.errors import RecipeError
from recipes.tasks.wording import counted, listed, row_names, shown

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# Well-known names, surest first: one name of a tier is taken, several of a tier are no safe guess.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "text": (
        ("text",),
        ("sentence", "review", "question", "message", "tweet", "utterance", "comment", "document"),
        ("content", "body", "description", "query", "headline", "abstract", "title"),
    ),
    "label": (
        ("label", "labels"),
        ("class", "category", "target", "sentiment", "intent", "emotion", "topic"),
        ("stars", "rating", "score", "value", "y"),
    ),
}
#: Names of the two texts of a pair.
_PAIRS = (
    ("text", "pair"), ("text", "text_pair"), ("text_a", "text_b"), ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"), ("premise", "hypothesis"), ("question1", "question2"),
)  # fmt: skip
#: A whole number that is written as a fraction.
_WHOLE = re.compile(r"-?\d+\.0+")
#: A list that is spelled out, and what is in it: texts in quotes, with or without commas.
_LIST = re.compile(r"\[(.*)\]", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_QUOTED_ONLY = re.compile(rf"(?:(?:{_QUOTED.pattern})(?:\s*,\s*|\s+|$))+", re.DOTALL)
#: Categories of characters that are not seen: controls and formats.
_UNSEEN = ("Cc", "Cf")
#: Names of columns that number rows.
_ROW_NAMES = ("id", "idx", "index", "key", "no", "nr", "number", "row", "uid", "uuid", "guid")
# Kept as names, since they are what the file says, but more often a word for "missing".
LIKELY_MISSING = {"na", "n/a", "#n/a", "none", "null", "-", "?"}


def choose_columns(
    frame: DataFrame,
    text: str | None,
    label: str | None,
    where: str,
    others: Sequence[str | None] = (),
) -> tuple[str, str, list[str]]:
    """Choose the column of the texts and that of the labels.

    A column that is not given is guessed where that is obvious: from its well-known name, of
    exactly two columns from what they hold, or, of the label, because only one column is left that
    may hold labels.

    Args:
        frame: The table.
        text: The text column as the recipe names it (``data.text``), or None to guess.
        label: The label column as the recipe names it (``data.label``), or None to guess.
        where: What the table is called in messages, usually its file.
        others: Columns that hold something else, such as the second text of a pair.

    Returns:
        The text column, the label column, and notes that say aloud what was guessed.

    Raises:
        RecipeError: A given name does not exist, both are the same, or no guess is safe.
    """
    columns = [str(column) for column in frame.columns]
    for key, name in (("data.text", text), ("data.label", label)):
        if name is not None:
            check_column(frame, name, key, where)
    if text is not None and text == label:
        raise RecipeError(
            f"data.text and data.label both name the column {shown(text)} of {where}. Name two; "
            f"there are {listed(map(shown, columns))}."
        )
    found_text = text or _by_name("text", columns, taken=label)
    found_label = label or _by_name("label", columns, taken=found_text)
    if len(columns) == 2 and not (found_text and found_label):
        found_text, found_label = _by_content(frame, found_text, found_label, where)
    if found_text is not None and found_label is None:
        found_label = _left(frame, (found_text, *others))
    if found_text is None or found_label is None:
        raise RecipeError(_undecided(found_text, found_label, columns, where))
    guesses = []
    if text is None:
        guesses.append(f"{shown(found_text)} as the text (data.text)")
    if label is None:
        guesses.append(f"{shown(found_label)} as the label (data.label)")
    notes = [f"Columns of {where}: guessed {' and '.join(guesses)}."] if guesses else []
    return found_text, found_label, notes


def only_text(frame: DataFrame, where: str) -> str:
    """Return the column of the texts of a table without labels: a well-known name, or its only one.

    Raises:
        RecipeError: No guess is safe.
    """
    columns = [str(column) for column in frame.columns]
    found = columns[0] if len(columns) == 1 else _by_name("text", columns, taken=None)
    if found is None:
        raise RecipeError(
            f"Which column of {where} holds the texts? There are "
            f"{listed(map(shown, columns), 20)}. Call it text, or as data.text says, or give a "
            "file with that column alone."
        )
    return found


def choose_pair(
    frame: DataFrame, text: str | None, pair: str | None, where: str
) -> tuple[str | None, str | None, list[str]]:
    """Choose the two columns of a pair of texts, guessed only where their names leave no doubt.

    Args:
        frame: The table.
        text: The text column as the recipe names it (``data.text``), or None to guess.
        pair: The column of the second text as the recipe names it (``data.pair``), or None.
        where: What the table is called in messages, usually its file.

    Returns:
        The text column as far as it is known, the column of the second text or None, and notes.

    Raises:
        RecipeError: A given name does not exist, or both are the same.
    """
    if pair is not None:
        check_column(frame, pair, "data.pair", where)
        if pair == text:
            raise RecipeError(
                f"data.text and data.pair both name the column {shown(text)} of {where}. Name two."
            )
        return text, pair, []
    columns = {str(column).strip().lower(): str(column) for column in frame.columns}
    for first, second in _PAIRS if text is None else ():
        if first in columns and second in columns:
            found = columns[first], columns[second]
            return *found, [
                f"Columns of {where}: guessed {shown(found[0])} and {shown(found[1])} as a pair "
                f"of texts (data.text, data.pair)."
            ]
    return text, None, []


def joined(frame: DataFrame, text: str, pair: str) -> DataFrame:
    """Return a table whose text column holds both texts of a pair, with a tab between them.

    Tabs within a text become spaces. Where one of both is missing or blank, or no string, so is
    the pair.

    Args:
        frame: The table.
        text: The column of the first text.
        pair: The column of the second text.
    """
    parts = zip(values_of(frame[text]), values_of(frame[pair]), strict=True)
    texts = [one_text(first, second) for first, second in parts]
    return frame.assign(**{text: texts})


def one_text(first: Any, second: Any) -> Any:
    """Return both texts of a pair as one; None, or what is no string, where one of them is so."""
    for part in (first, second):
        if not isinstance(part, str) or not part.strip():
            return None if part is None or isinstance(part, str) else part
    return PAIR.join(part.replace(PAIR, " ") for part in (first, second))


def check_column(frame: DataFrame, name: str, key: str, where: str) -> None:
    """Refuse a column that is not there.

    Args:
        frame: The table.
        name: The column.
        key: The recipe's key that names it.
        where: What the table is called in messages, usually its file.

    Raises:
        RecipeError: There is no such column; the nearest one is named.
    """
    columns = [str(column) for column in frame.columns]
    if name not in columns:
        raise RecipeError(_unknown(key, name, columns, where))


def clean(
    frame: DataFrame,
    text_col: str,
    label_col: str,
    where: str,
    invalid_rows: Literal["refuse", "drop"],
    max_characters: int,
    phase_col: str | None = None,
    labels: Sequence[str | None] | None = None,
) -> tuple[DataFrame, list[str]]:
    """Keep the texts as they are, turn the labels into names, and weed out unusable rows.

    Unusable is a row whose text is missing, blank, no string or too long, or whose label is
    missing or blank. Label names follow one rule for every source, so that the integer 1 of one
    file is the 1.0 of another: see ``label_name``. Values of the column of phases become names by
    the same rule, and a row without one is unusable, too.

    Args:
        frame: The table; its index numbers the rows as the person counts them.
        text_col: The text column.
        label_col: The label column.
        where: What the table is called in messages, usually its file.
        invalid_rows: Whether unusable rows stop everything or are left out and counted.
        max_characters: The longest text that is let in.
        phase_col: The column that names the phase of each row, if there is one.
        labels: One string a row, None where there is none, if labels are more than names.

    Returns:
        A frame with the string columns ``text``, ``label`` and, if asked for, ``phase``, and the
        index of ``frame``, and notes on what was left out or looks odd.

    Raises:
        RecipeError: Rows are unusable (and to be refused), or none is left; the text column holds
            numbers; labels or phases are lists or objects.
    """
    import pandas as pd

    texts = values_of(frame[text_col])
    _check_texts(frame, texts, text_col, where)
    if labels is None:
        labels = _names_in(frame, label_col, "data.label", where)
    problems = [problem_of(*pair, max_characters) for pair in zip(texts, labels, strict=True)]
    columns: dict[str, Sequence[Any]] = {"text": texts, "label": labels}
    if phase_col is not None:
        columns["phase"] = _names_in(frame, phase_col, "phases.column", where)
        problems = [
            problem or (f"without a value in {shown(phase_col)}" if phase is None else None)
            for phase, problem in zip(columns["phase"], problems, strict=True)
        ]
    rows = pd.DataFrame(columns, index=frame.index, dtype=object)
    good = rows[[problem is None for problem in problems]]
    notes = []
    if len(good) < len(rows):
        summary = _summary(rows, problems)
        if good.empty:
            raise RecipeError(
                f"No row of {where} can be used: {summary}. Are the columns right? Taken were "
                f"data.text={text_col} and data.label={label_col}."
            )
        if invalid_rows == "refuse":
            raise RecipeError(_refusal(rows, summary, where, max_characters))
        notes.append(f"Left out {_of(rows, len(rows) - len(good), where)}: {summary}.")
    return good, notes + _odd_names(good, where)


def label_name(value: object) -> str | None:
    """Name a label: text without outer blanks, 1 and 1.0 as ``1``, True as ``true``.

    It does not matter whether a number is one or is spelled out: once a value is missing, tables
    of whole numbers are often written as 1.0, and a 1 of another file is still the same class.

    Returns:
        The name; None where the label is missing: None, NaN (also written out) or blank.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        name = str(int(value)) if value.is_integer() else repr(value)
    else:
        name = "" if value is None else str(value).strip()
        if _WHOLE.fullmatch(name):
            whole = name.partition(".")[0]
            name = "0" if whole == "-0" else whole
    return None if name.lower() in ("", "nan") else name


def folded(name: str) -> str:
    """Return a name without what may differ where names look the same.

    That is case, kinds and numbers of blanks, characters that are not seen, and forms of Unicode.
    """
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return "".join(c for c in plain if unicodedata.category(c) not in _UNSEEN)


def is_list(value: object) -> bool:
    """Say whether a value holds several: a list, a tuple or an array, and no text or object."""
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)


def unpacked(value: Any) -> Any:
    """Return the list that a text spells out, else the value.

    Lists are spelled out as JSON, as Python prints lists of texts, or as numpy does, without
    commas.
    """
    if not isinstance(value, str) or not (spelled := _LIST.fullmatch(value.strip())):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        inside = spelled.group(1).strip()
        if not _QUOTED_ONLY.fullmatch(inside):
            return value
        return [re.sub(r"\\(['\"\\])", r"\1", text[1:-1]) for text in _QUOTED.findall(inside)]
    return found if is_list(found) else value


def number(value: Any) -> float | None:
    """Return the number that a label is; None if it is something else, or no finite one."""
    if isinstance(value, bool) or "_" in str(value):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def label_names(labels: Iterable[str]) -> list[str]:
    """Return the distinct names in a fixed order: by value if all are numbers, else as text.

    Args:
        labels: Label names, one per row.
    """
    names = sorted(set(labels))
    return sorted(names, key=float) if all(number(name) is not None for name in names) else names


def _by_name(role: str, columns: Sequence[str], taken: str | None) -> str | None:
    for tier in _NAMES[role]:
        found = [name for name in columns if name.strip().lower() in tier and name != taken]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _by_content(
    frame: DataFrame, text: str | None, label: str | None, where: str
) -> tuple[str | None, str | None]:
    """Tell text and label of two columns apart, as far as what they hold leaves no doubt."""
    words = {str(name): column.dropna().astype(str) for name, column in frame.items()}
    by_length = sorted(words, key=lambda name: words[name].str.len().mean())
    likely_text = text or next(name for name in reversed(by_length) if name != label)
    likely_label = label or next(name for name in by_length if name != likely_text)
    texts, labels = words[likely_text], words[likely_label]
    reads_as_text = texts.str.len().mean() >= 15 and texts.nunique() >= 0.7 * len(texts)
    reads_as_label = labels.nunique() <= 0.5 * len(labels)
    if label is None and reads_as_label and likely_label in set(labels):
        raise RecipeError(
            f"{where} seems to have no header: its first line is {shown(likely_text)} and "
            f"{shown(likely_label)}, and {shown(likely_label)} is a label further down, too. Put a "
            f"line with column names on top, for example text and label."
        )
    return (
        likely_text if text or reads_as_text else None,
        likely_label if label or reads_as_label else None,
    )


def _left(frame: DataFrame, taken: Sequence[str | None]) -> str | None:
    """Return the only other column that does not number the rows, if it may hold labels."""
    left = [
        str(name)
        for name, column in frame.items()
        if name not in taken and not _numbers_rows(str(name), column)
    ]
    if len(left) != 1:
        return None
    values = [value for value in values_of(frame[left[0]]) if value is not None]
    few = 2 * len(set(map(label_name, values))) <= len(values)
    return left[0] if few or all(number(value) is not None for value in values) else None


def _numbers_rows(name: str, column: Series) -> bool:
    """Say whether a column tells one row from another and nothing else."""
    if name.strip().lower() in _ROW_NAMES:
        return True
    values = values_of(column)
    found = map(number, values)
    whole = all(value is not None and value.is_integer() for value in found)
    return whole and len(set(map(label_name, values))) == len(values)


def _unknown(key: str, name: str, columns: Sequence[str], where: str) -> str:
    folded = {column.strip().lower(): column for column in reversed(columns)}
    near = difflib.get_close_matches(name.strip().lower(), folded, n=1)
    hint = f" Did you mean {shown(folded[near[0]])}?" if near else ""
    return (
        f"{where} has no column {shown(name)}, which {key} names.{hint} "
        f"Its columns: {listed(map(shown, columns))}."
    )


def _undecided(text: str | None, label: str | None, columns: Sequence[str], where: str) -> str:
    if len(columns) < 2:
        return (
            f"{where} has only the column {listed(map(shown, columns)) or 'none'}; it takes one "
            f"for the text and one for the label."
        )
    missing = [key for key, name in (("text", text), ("label", label)) if name is None]
    return (
        f"Which column of {where} holds the {' and which the '.join(missing)}? There are "
        f"{listed(map(shown, columns), 20)}. Set {listed(f'data.{key}=NAME' for key in missing)}."
    )


def values_of(column: Series) -> list[Any]:
    """Return the values as plain Python objects, every kind of missing one as None."""
    missing = column.isna().tolist()
    return [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]


def _check_texts(frame: DataFrame, texts: list[Any], column: str, where: str) -> None:
    present = (text for text in texts if text is not None and str(text).strip())
    examples = [text for _, text in zip(range(3), present, strict=False)]
    if not examples or not all(number(text) is not None for text in [*examples, *present]):
        return
    raise RecipeError(
        f"The column {shown(column)} of {where} holds numbers ({listed(map(str, examples))}), not "
        f"text. Set data.text to the column with the text; there are "
        f"{listed(map(shown, frame.columns))}."
    )


def _names_in(frame: DataFrame, column: str, key: str, where: str) -> list[str | None]:
    values = values_of(frame[column])
    # Lists, dicts, arrays and bytes have a length; what else has one is a string.
    nested = [not isinstance(value, str) and hasattr(value, "__len__") for value in values]
    if any(nested):
        rows = frame.index[nested]
        raise RecipeError(
            f"The column {shown(column)} of {where} holds lists or objects, such as "
            f"{shown(values[nested.index(True)])} ({row_names(frame, rows)}). What is wanted is "
            f"one word or number per row: set {key} to a column that has such."
        )
    return [label_name(value) for value in values]


def problem_of(text: object, label: str | None, max_characters: int) -> str | None:
    """Say what makes a row unusable, as the end of "3 rows …"; None if nothing does.

    Args:
        text: Of the row.
        label: From `label_name`.
        max_characters: The longest text that is let in.
    """
    if text is None or (isinstance(text, str) and not text.strip()):
        return "with an empty text"
    if not isinstance(text, str):
        return "whose text is no string"
    if len(text) > max_characters:
        return f"with a text of more than {max_characters:,} characters"
    return "without a label" if label is None else None


def _summary(rows: DataFrame, problems: list[str | None]) -> str:
    kinds: dict[str, list[object]] = {}
    for row, problem in zip(rows.index, problems, strict=True):
        if problem is not None:
            kinds.setdefault(problem, []).append(row)
    return ", ".join(
        f"{len(found):,} {kind} ({row_names(rows, found)})" for kind, found in kinds.items()
    )


def _refusal(rows: DataFrame, summary: str, where: str, max_characters: int) -> str:
    longest = max((len(text) for text in rows["text"] if isinstance(text, str)), default=0)
    bad = f"Some rows of {where} cannot be used: {summary}. Mend them, or leave them out with"
    if longest <= max_characters:
        return f"{bad} data.invalid_rows=drop."
    return (
        f"{bad} data.invalid_rows=drop; data.max_characters={longest} would let in the longest "
        f"text, though a model reads only its beginning."
    )


def _of(rows: DataFrame, count: int, where: str) -> str:
    return f"{count:,} of the {len(rows):,} rows of {where}"


def _odd_names(rows: DataFrame, where: str) -> list[str]:
    counts = rows["label"].value_counts()
    odd = [
        f"{shown(name)} ({counted(counts[name], 'row')})"
        for name in counts.index
        if name.lower() in LIKELY_MISSING
    ]
    if not odd:
        return []
    return [
        f"Labels of {where} taken as class names, as written: {listed(odd)}. If they mean that the "
        f"label is missing, empty those fields."
    ]
