"""Linear models for all problem types, on dense features and on sparse ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from recipes.linear import Linear
from recipes.problems import problems

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
