"""What gives the label away and will not be there later: columns, and words within the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipes.look.examples import Example
from recipes.look.findings import NAMED, Finding, places
from recipes.look.sides import Side, sides_of
from recipes.tasks.wording import counted, listed, shown

if TYPE_CHECKING:
    import numpy as np

_FOLDS, _SEED = 5, 0
#: Mean share over the classes that a column alone gets right on rows held out.
_RIGHT = 0.95
#: A word gives a class away if so many of its texts have it and so few others.
_HAS, _ALONE = 0.8, 0.98
#: A label's own name is a leak in so many of its texts, and so many times as often as in others.
_NAMED, _TIMES = 0.3, 5
_LEAST, _READ = 20, 1000
#: A number in a value; in "a-12" the dash is no sign.
_NUMBER = re.compile(r"(?:(?<![\w.])-)?\d+(?:\.\d+)?")
#: Of several labels: rows with one, and without it, that columns are judged by; columns times
#: labels that are judged, which is what time goes by.
_ROWS, _JUDGED = 1000, 500


def leak_findings(examples: Sequence[Example]) -> Iterator[Finding]:
    """Tell which columns and which words give the label away.

    Args:
        examples: Rows with one label each.
    """
    labelled = [example for example in examples if example.label is not None]
    counts = Counter(example.label for example in labelled)
    rows = [example for example in labelled if counts[example.label] >= _FOLDS]
    if len(rows) < _LEAST or len({example.label for example in rows}) < 2:
        return
    for name in dict.fromkeys(name for example in rows for name in example.others):
        yield from _column(name, rows)
    sides = sorted(sides_of(rows, 1), key=lambda side: side.label)
    yield from _names(rows, sides)
    yield from _words(rows, sides)


def several_leaks(examples: Sequence[Example], left_out: dict[str, str]) -> Iterator[Finding]:
    """Tell which columns and which words give one of several labels away, or its absence.

    Args:
        examples: Rows with any number of labels.
        left_out: Where to say which labels took too long.
    """
    rows = [example for example in examples if example.label is not None]
    sides = sides_of(rows, _LEAST // 2)
    columns = list(dict.fromkeys(name for example in rows for name in example.others))
    most = max(1, _JUDGED // max(1, len(columns)))
    if columns and (late := [side.label for side in sides[most:]]):
        left_out[f"leaking columns for {listed(map(shown, late), 5)}"] = (
            f"only the {most:,} with most rows are judged, for time"
        )
    for name in columns:
        yield from _column_of_several(name, rows, sides[:most])
    sides = sorted(sides, key=lambda side: side.label)
    yield from _names(rows, sides)
    yield from _words(rows, sides)


def _column(name: str, rows: Sequence[Example]) -> Iterator[Finding]:
    import numpy as np

    _, labels = np.unique([example.label for example in rows], return_inverse=True)
    score, way = _best_way(_values(name, rows), labels)
    if score >= _RIGHT:
        yield leaking_column(
            name,
            f"tells the label: {way} is right on {score:.1%} of rows held out (mean over the "
            "classes).",
            three(rows),
        )


def _column_of_several(
    name: str, rows: Sequence[Example], sides: Sequence[Side]
) -> Iterator[Finding]:
    import numpy as np

    values, told, seen = _values(name, rows), [], []
    for side in sides:
        # As many rows of both as there may be: the mean over yes and no stays what it is.
        parts = [np.flatnonzero(has) for has in (side.has, ~side.has)]
        some = np.concatenate([part[:: -(-len(part) // _ROWS)] for part in parts])
        score, way = _best_way(values[some], side.has[some].astype(int))
        if score >= _RIGHT:
            told.append(f"{shown(side.label)} ({way}, {score:.1%})")
            yes, no = (rows[part[0]] for part in parts)
            seen += [(yes, f"has {shown(side.label)}"), (no, f"lacks {shown(side.label)}")]
    if told:
        yield leaking_column(
            name,
            f"tells whether a row has the {'label' if len(told) == 1 else 'labels'} "
            f"{listed(told, 5)}: so many of the rows held out are right (mean over those with and "
            "without it).",
            seen[:NAMED],
        )


def _values(name: str, rows: Sequence[Example]) -> Any:
    import numpy as np

    return np.array([example.others.get(name, "") for example in rows], dtype=object)


def _best_way(values: Any, labels: np.ndarray) -> tuple[float, str]:
    """Return how well a column alone tells the label, and by what of it."""
    ways: dict[str, Callable[..., np.ndarray]] = {
        "its value": _by_value(values),
        "the form of its value": _by_value(by_form(values)),
        "the number in it": _by_number(values),
    }
    return max((_held_out(answer, labels), way) for way, answer in ways.items())


def three(rows: Sequence[Example]) -> list[tuple[Example, str]]:
    """Return the first row, one in the middle and the last, and what each says."""
    return [(rows[at], shown(rows[at].label)) for at in (0, len(rows) // 2, -1)]


def leaking_column(name: str, what: str, seen: Sequence[tuple[Example, str]]) -> Finding:
    """Return what is told of a column that gives the label away.

    Args:
        name: The column.
        what: What it tells, and how well.
        seen: Rows that show it, and what each says.
    """
    return Finding(
        "leaking-column",
        "warning",
        f"The column {shown(name)} alone {what}",
        "",
        "A run reads the columns of text and label only, so this one does no harm by itself.",
        f"Keep {shown(name)} out of the text, and ask whether the rows were gathered class by "
        "class: then other traces of that may be in the text, too.",
        [
            f"{places([(e.origin, e.number)])}: {shown(e.others.get(name, ''))} → {says}"
            for e, says in seen
        ],
    )


def by_form(values: Any) -> Any:
    """Return values with each number in them as 0."""
    import numpy as np

    return np.array([re.sub(r"\d+", "0", value) for value in values])


def _held_out(answer: Callable[..., np.ndarray], labels: np.ndarray) -> float:
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    answers = labels.copy()
    for known, asked in folds.split(labels, labels):
        answers[asked] = answer(known, asked, labels)
    return float(balanced_accuracy_score(labels, answers))


def _by_value(values: Any) -> Callable[..., np.ndarray]:
    """Answer the most frequent label of the same value; of an unknown one, that of all."""

    def answer(known: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> np.ndarray:
        import numpy as np

        seen: dict[str, Counter[int]] = {}
        for row in known:
            seen.setdefault(values[row], Counter())[int(labels[row])] += 1
        most = {value: counts.most_common(1)[0][0] for value, counts in seen.items()}
        usual = int(np.bincount(labels[known]).argmax())
        return np.array([most.get(values[row], usual) for row in asked])

    return answer


def _by_number(values: Any) -> Callable[..., np.ndarray]:
    """Answer by ranges of the number in a value, which finds ids given class by class."""
    import numpy as np

    numbers = np.array([number_in(value) for value in values])[:, None]

    def answer(known: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> np.ndarray:
        from sklearn.tree import DecisionTreeClassifier

        leaves = 8 * len(np.unique(labels))
        tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=4, random_state=_SEED)
        found: np.ndarray = tree.fit(numbers[known], labels[known]).predict(numbers[asked])
        return found

    return answer


def number_in(value: str) -> float:
    """Return the last number in a value; -1 if there is none."""
    try:
        number = float(value)
    except ValueError:
        found = _NUMBER.findall(value)
        number = float(found[-1][:15]) if found else -1.0
    # A tree splits float32.
    return number if abs(number) < 1e30 else -1.0


def _names(rows: Sequence[Example], sides: Sequence[Side]) -> Iterator[Finding]:
    """Look for a label's own name in its texts."""
    texts = [example.text[:_READ].casefold() for example in rows]
    told, hit = [], []
    for side in sides:
        label, size = side.label, int(side.has.sum())
        word = label.casefold().strip()
        if len(word) < 3 or not any(map(str.isalpha, word)):
            continue
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        has = [word in text and bool(pattern.search(text)) for text in texts]
        own = [e for e, there, its in zip(rows, has, side.has, strict=True) if there and its]
        share = len(own) / size
        others = (sum(has) - len(own)) / max(1, len(rows) - size)
        if share >= _NAMED and share >= _TIMES * others:
            told.append(f"{shown(label)} in {share:.0%} of its texts, {others:.0%} of the others")
            hit += own
    if told:
        yield Finding(
            "label-in-text",
            "warning",
            f"The label's name stands in the text: {listed(told, 5)}.",
            places([(example.origin, example.number) for example in hit]),
            "A run takes texts as they are, and the model learns to look for that word.",
            "Take it out of the texts, unless the texts to come will have it, too.",
        )


def _words(rows: Sequence[Example], sides: Sequence[Side]) -> Iterator[Finding]:
    """Look for one word that nearly all texts of a class have, and nearly no other text."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        binary=True, min_df=_FOLDS, max_features=50_000, token_pattern=r"[\[<#@]?\w+[\]>:]?"
    )
    try:
        there = counter.fit_transform([example.text[:_READ] for example in rows]).tocsc()
    except ValueError:  # no word is in five texts
        return
    total = np.asarray(there.sum(axis=0)).ravel()
    told = []
    for name, own in ((side.label, side.has) for side in sides):
        within = there.T @ own.astype(np.int64)
        found = np.flatnonzero((within >= _HAS * own.sum()) & (within >= _ALONE * total))
        if len(found) and own.sum() >= _LEAST // 2:
            best = found[within[found].argmax()]
            word = counter.get_feature_names_out()[best]
            told.append(
                f"{shown(word)} is in {within[best] / own.sum():.0%} of the texts of {shown(name)} "
                f"and in {counted(int(total[best] - within[best]), 'other')}"
            )
    if told:
        yield Finding(
            "telling-word",
            "warning",
            f"One word gives a class away: {listed(told, 5)}.",
            "",
            "A run takes texts as they are, and the model learns to look for that word.",
            "If the word came in while the data were made, take it out.",
        )
