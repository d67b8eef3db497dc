"""Rows whose label is likely wrong.

Each row is judged by a classifier that has not seen it (five folds). One reads the words (logistic
regression on TF-IDF), a second one, where they are there, the frozen backbone's embeddings; their
probabilities are averaged. A row is named if its own label gets less than .1 and another one more
than .7: the out-of-fold self-confidence of confident learning (Northcutt et al., 2021). Their
thresholds for each class were tried on top (cleanlab 2.9): on easy data they rise to .98 and hide
what is plain, on hard ones they change next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipes.look.examples import Example
from recipes.look.findings import LISTED, NAMED, Finding, places
from recipes.tasks.wording import agree, counted, shown

if TYPE_CHECKING:
    import numpy as np

_FOLDS, _SEED = 5, 0
#: Probability of a row's own label, and of the best other one.
OWN, _OTHER = 0.1, 0.7
#: Share of the rows from which on the finding is a warning.
MANY = 0.005
#: Of the majority's errors the classifiers may make so many, or they know too little to judge.
WORTH = 0.6
_READ, _TERMS = 1000, 20_000
DOES = "A run learns such rows as they are, and counts them as they are."
CHANGE = (
    "Read them and correct the labels. The list is in what --json FILE writes, and in a run's "
    "baseline/data.json."
)
#: Rows to judge at least.
LEAST = 50


def suspect_findings(
    examples: Sequence[Example],
    embeddings: np.ndarray | None,
    left_out: dict[str, str],
    order: Sequence[str] = (),
) -> Iterator[Finding]:
    """Tell of rows whose label is likely wrong.

    Args:
        examples: Rows with one label each, in the order of the sample.
        embeddings: ``[rows, width]`` of the same rows, or None.
        left_out: Where to say why nothing could be judged.
        order: All labels from low to high, if they have an order: what looks like a neighbor of its
            label is no error then.
    """
    import numpy as np

    rows = _judged(examples)
    chosen = [examples[row] for row in rows]
    if len(rows) < LEAST or len({example.label for example in chosen}) < 2:
        left_out["label errors"] = (
            f"needs {LEAST} different texts of two classes with {_FOLDS} or more each"
        )
        return
    names, labels = np.unique([example.label for example in chosen], return_inverse=True)
    chances = chances_of(words_of(chosen), None if embeddings is None else embeddings[rows], labels)
    right = float((chances.argmax(1) == labels).mean())
    majority = float(np.bincount(labels).max() / len(labels))
    if 1 - right > WORTH * (1 - majority):
        left_out["label errors"] = (
            f"a simple classifier is right on {right:.0%} of the rows that it has not seen, the "
            f"most frequent class on {majority:.0%}: too little to judge labels by"
        )
        return
    suspects = _suspects(chances, labels)
    if order:
        places_of = np.array([order.index(name) for name in names])
        far = np.abs(places_of[chances[suspects].argmax(1)] - places_of[labels[suspects]]) > 1
        suspects = suspects[far]
    if len(suspects):
        yield _finding(chosen, suspects, chances, names, right)


def _judged(examples: Sequence[Example]) -> list[int]:
    """Choose rows: each text once, no class without its folds."""
    first = first_rows(examples)
    counts = Counter(examples[row].label for row in first)
    return [row for row in first if counts[examples[row].label] >= _FOLDS]


def first_rows(examples: Sequence[Example]) -> list[int]:
    """Return the places of labelled rows, each text once: its twin would give it away."""
    first: dict[str, int] = {}
    for row, example in enumerate(examples):
        if example.label is not None:
            first.setdefault(example.text, row)
    return list(first.values())


def words_of(examples: Sequence[Example]) -> Any:
    """Return the TF-IDF of words and pairs of words, sparse ``[rows, terms]``."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Any one-letter word counts, so that a text of such has words, too.
    words = TfidfVectorizer(
        ngram_range=(1, 2), max_features=_TERMS, sublinear_tf=True, token_pattern=r"\w+|[^\w\s]"
    )
    return words.fit_transform([example.text[:_READ] for example in examples])


def chances_of(words: Any, embeddings: np.ndarray | None, labels: np.ndarray) -> Any:
    """Return the probability of each label for each row, from classifiers without that row.

    Args:
        words: From `words_of`, ``[rows, terms]``.
        embeddings: ``[rows, width]`` of the same rows, or None.
        labels: Label ids ``[rows]``.
    """
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    # Stochastic gradients: as good as L-BFGS here, in a twentieth of the time.
    reader = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=20, random_state=_SEED)
    with threadpool_limits(1, "blas"):
        chances = cross_val_predict(reader, words, labels, cv=folds, method="predict_proba")
        if embeddings is None:
            return chances
        feeler = LogisticRegression(C=1.0, max_iter=100)
        others = cross_val_predict(feeler, embeddings, labels, cv=folds, method="predict_proba")
    return (chances + others) / 2


def _suspects(chances: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the suspicious rows, the surest first."""
    import numpy as np

    own = chances[np.arange(len(labels)), labels]
    best = chances.max(axis=1)
    rows = np.flatnonzero((own < OWN) & (best > _OTHER))
    return rows[np.argsort(own[rows] - best[rows], kind="stable")]


def _finding(
    examples: Sequence[Example],
    suspects: np.ndarray,
    chances: np.ndarray,
    names: np.ndarray,
    right: float,
) -> Finding:
    share = len(suspects) / len(examples)
    told = []
    for row in suspects[:NAMED]:
        example, best = examples[row], int(chances[row].argmax())
        told.append(
            f"{places([(example.origin, example.number)])}: {shown(example.text, 80)} says "
            f"{shown(example.label)}, looks like {shown(names[best])} ({chances[row, best]:.2f})"
        )
    return Finding(
        "label-errors",
        "warning" if share >= MANY else "note",
        f"{counted(len(suspects), 'row')} ({share:.1%}) of {len(examples):,} judged likely "
        f"{agree(len(suspects), 'have')} a wrong label, or {agree(len(suspects), 'are')} hard: "
        f"classifiers that have not seen {'it' if len(suspects) == 1 else 'them'}, right on "
        f"{right:.0%} of all rows, are sure of another one. The surest first.",
        places([(examples[row].origin, examples[row].number) for row in suspects]),
        DOES,
        CHANGE,
        told,
        [(examples[row].origin.name, examples[row].number) for row in suspects[:LISTED]],
    )
