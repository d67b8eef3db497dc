"""What gives the label away and will not be there later: columns, and words within the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipes.look.examples import Example
from recipes.look.findings import Finding, places
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
    yield from _names(rows)
    yield from _words(rows)


def _column(name: str, rows: Sequence[Example]) -> Iterator[Finding]:
    import numpy as np

    values = np.array([example.others.get(name, "") for example in rows], dtype=object)
    _, labels = np.unique([example.label for example in rows], return_inverse=True)
    ways: dict[str, Callable[..., np.ndarray]] = {
        "its value": _by_value(values),
        "the form of its value": _by_value(np.array([re.sub(r"\d+", "0", v) for v in values])),
        "the number in it": _by_number(values),
    }
    score, way = max((_held_out(answer, labels), way) for way, answer in ways.items())
    if score < _RIGHT:
        return
    example = rows[0]
    yield Finding(
        "leaking-column",
        "warning",
        f"The column {shown(name)} alone tells the label: {way} is right on {score:.1%} of rows "
        "held out (mean over the classes).",
        "",
        "A run reads the columns of text and label only, so this one does no harm by itself.",
        f"Keep {shown(name)} out of the text, and ask whether the rows were gathered class by "
        "class: then other traces of that may be in the text, too.",
        [
            f"{places([(e.origin, e.number)])}: {shown(e.others.get(name, ''))} → {shown(e.label)}"
            for e in (example, *rows[len(rows) // 2 :: len(rows) // 2][:1], rows[-1])
        ],
    )


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

    numbers = np.array([_number(value) for value in values])[:, None]

    def answer(known: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> np.ndarray:
        from sklearn.tree import DecisionTreeClassifier

        leaves = 8 * len(np.unique(labels))
        tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=4, random_state=_SEED)
        found: np.ndarray = tree.fit(numbers[known], labels[known]).predict(numbers[asked])
        return found

    return answer


def _number(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        found = re.findall(r"\d+", value)
        number = float(found[-1][:15]) if found else -1.0
    # A tree splits float32.
    return number if abs(number) < 1e30 else -1.0


def _names(rows: Sequence[Example]) -> Iterator[Finding]:
    """Look for a label's own name in its texts."""
    texts = [example.text[:_READ].casefold() for example in rows]
    told, hit = [], []
    for label in sorted({example.label or "" for example in rows}):
        word = label.casefold().strip()
        if len(word) < 3 or not any(map(str.isalpha, word)):
            continue
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        has = [word in text and bool(pattern.search(text)) for text in texts]
        own = [e for e, there in zip(rows, has, strict=True) if there and e.label == label]
        size = sum(example.label == label for example in rows)
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


def _words(rows: Sequence[Example]) -> Iterator[Finding]:
    """Look for one word that nearly all texts of a class have, and nearly no other text."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    names, labels = np.unique([example.label or "" for example in rows], return_inverse=True)
    counter = CountVectorizer(
        binary=True, min_df=_FOLDS, max_features=50_000, token_pattern=r"[\[<#@]?\w+[\]>:]?"
    )
    try:
        there = counter.fit_transform([example.text[:_READ] for example in rows]).tocsc()
    except ValueError:  # no word is in five texts
        return
    total = np.asarray(there.sum(axis=0)).ravel()
    told = []
    for at, name in enumerate(names):
        own = labels == at
        within = np.asarray(there[own].sum(axis=0)).ravel()
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
