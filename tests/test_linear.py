"""Linear models for all problem types, on dense features and on sparse ones."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from tiny_work import workspace

from recipes.linear import Linear
from recipes.problems import problems
from recipes.stages.baseline import tfidf_logreg

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(300, 12)) * (RNG.random((300, 12)) < 0.5)
SCORES = FEATURES @ RNG.normal(size=(12, 3)) + 0.3 * RNG.normal(size=(300, 3))


SCALE = {"scale": {"mean": 0.0, "deviation": 1.0}}


@pytest.mark.parametrize(
    ("problem", "names", "labels"),
    [
        ("single_label", "abc", SCORES.argmax(axis=1)),
        ("single_label", "ab", (SCORES[:, 0] > 0).astype(int)),
        ("ordinal", "abc", np.digitize(SCORES[:, 0], [-1, 1])),
        ("multi_label", "abc", (SCORES > 0.5).astype(int)),
        ("regression", "y", SCORES[:, 0]),
    ],
    ids=["three", "two", "ordinal", "several", "number"],
)
def test_sparse_features_are_answered_as_dense_ones(
    problem: str, names: str, labels: np.ndarray
) -> None:
    """Another solver is the same model of two labels, and one as good of several."""
    known = problems.get(problem)(list(names), facts=SCALE)
    dense = Linear(problem, FEATURES[:200], labels[:200].tolist())
    sparse = Linear(problem, csr_array(FEATURES[:200]), labels[:200].tolist())
    assert dense.weights == sparse.weights
    one, other = dense.logits(FEATURES[200:]), sparse.logits(csr_array(FEATURES[200:]))
    assert one.shape == other.shape == (100, len(names) if names != "y" else 1)
    scores = [known.metrics(own, list(labels[200:]))[known.headline] for own in (one, other)]
    assert min(scores) > 0.7
    assert scores[1] == pytest.approx(scores[0], abs=0.06)
    if names == "ab":
        assert known.probabilities(other) == pytest.approx(known.probabilities(one), abs=0.01)


def test_texts_without_a_word_of_two_letters_are_counted_by_their_signs(tmp_path: Path) -> None:
    texts = ["".join(signs) for signs in product("\N{GRINNING FACE}\N{POUTING FACE}!?", repeat=4)]
    with (tmp_path / "run.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(text, "sure" if "!" in text else "open") for text in texts]
        csv.writer(file).writerows([("text", "label"), *rows])
    work = workspace(tmp_path / "run", tmp_path)
    answer, facts = tfidf_logreg(work)
    found = work.problem.metrics(answer(work.rows.test.texts), work.rows.test.labels)
    assert found["accuracy"] > 0.9
    assert facts["size_bytes"] > 0
