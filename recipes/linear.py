"""Linear models for every problem type: what a person would try first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Inverse strength of the regularization of a logistic regression.
_C = 10.0
#: The least probability whose logarithm is taken.
_LEAST = 1e-30
#: Strength of the regularization of a ridge regression.
_ALPHA = 1.0


class Linear:
    """A logistic regression, one for each of several labels, or a ridge regression of a number.

    Args:
        problem: A name from `recipes.problems`.
        features: Of the rows to learn from, ``[rows, features]``, dense or sparse.
        labels: What they say, in the form of `recipes.tasks.Split.labels`.

    Attributes:
        weights: How many numbers were learnt.
    """

    def __init__(self, problem: str, features: Any, labels: Sequence[Any]) -> None:
        import numpy as np
        from scipy.sparse import issparse
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.multiclass import OneVsRestClassifier

        self._problem = problem
        # L-BFGS keeps twenty copies of all weights, and words have many. Label by label, Newton's
        # method answers as well in a fraction of the time.
        solver = "liblinear" if issparse(features) else "lbfgs"
        logistic = LogisticRegression(C=_C, max_iter=1000, solver=solver)
        if problem == "regression":
            self._model: Any = Ridge(alpha=_ALPHA).fit(features, labels)
            found = [self._model]
        elif problem == "multi_label" or issparse(features):
            self._model = OneVsRestClassifier(logistic).fit(features, np.asarray(labels))
            found = self._model.estimators_
        else:
            self._model = logistic.fit(features, labels)
            found = [self._model]
        # A label that every row has, or none, has no weights.
        parts = [(getattr(one, "coef_", 0), getattr(one, "intercept_", 0)) for one in found]
        self.weights = sum(np.size(coef) + np.size(intercept) for coef, intercept in parts)

    def layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a logistic regression of classes as a linear layer with a softmax after it.

        Returns:
            Weights ``[outputs, features]`` and biases ``[outputs]``.
        """
        import numpy as np

        coef, intercept = self._model.coef_, self._model.intercept_
        if len(coef) == 1:  # of two classes only the second is described
            coef, intercept = (np.concatenate([-part / 2, part / 2]) for part in (coef, intercept))
        return coef, intercept

    def logits(self, features: Any) -> np.ndarray:
        """Return logits ``[rows, outputs]``, which `recipes.problems` turns into answers."""
        import numpy as np

        if self._problem == "regression":
            return np.asarray(self._model.predict(features))[:, None]
        if self._problem == "multi_label":
            # In float32 one less a billionth is one.
            sure = np.asarray(self._model.predict_proba(features), dtype=np.float64)
            # Of a single label sklearn tells no and yes, of several yes alone.
            sure = sure[:, -len(self._model.estimators_) :]
            shares = np.clip(sure, 1e-9, 1 - 1e-9)
            odds: np.ndarray = np.log(shares / (1 - shares))
            return odds
        scores: np.ndarray = np.log(np.maximum(self._model.predict_proba(features), _LEAST))
        return scores
