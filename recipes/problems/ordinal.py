"""One of several labels that have an order, such as one to five stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.problems import problems
from recipes.problems.decision import AS_IT_IS, Decision
from recipes.problems.single_label import SingleLabel

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@problems.register("ordinal")
class Ordinal(SingleLabel):
    """One of several labels, from low to high; labels of rows are their ids, ``[rows]``.

    A model has a logit for each label, as for labels without an order, but learns that a near miss
    is better than a far one (`distill.builtin.prediction.SoftOrdinal`), and the answer is the
    median of its probabilities; a temperature can move it, as certain models have it nearer to the
    likeliest label.
    """

    objectives: ClassVar[Mapping[str, str]] = {"ce": "soft_ordinal"}
    decides: ClassVar[frozenset[str]] = frozenset({"calibrate", "precision"})
    offset_search = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy with the soft labels, in nats."""
        from distill.builtin.prediction import soft_ordinal_loss

        return soft_ordinal_loss(logits, labels).mean()

    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of labels without an order, and two that see how far answers miss.

        ``mae`` is the mean distance in labels, ``qwk`` Cohen's kappa with quadratic weights
        (Cohen, 1968): 1 if all are right, 0 for chance.
        """
        import numpy as np
        from sklearn.metrics import cohen_kappa_score

        from recipes.problems.metrics import classification_metrics

        given, truth = self.answers(logits), np.asarray(labels)
        found = classification_metrics(given, truth, list(self.labels))
        ids = list(range(len(self.labels)))
        # One and the same label everywhere has no kappa: it is as good as chance.
        single = len({*given.tolist(), *truth.tolist()}) == 1
        kappa = 0.0 if single else cohen_kappa_score(truth, given, labels=ids, weights="quadratic")
        return {**found, "mae": float(np.abs(given - truth).mean()), "qwk": float(kappa)}

    def all_metrics(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, float]:
        """Return every figure of labels without an order, and those of `metrics`."""
        moved = decision.moved(logits, self.labels)
        return {**super().all_metrics(logits, labels, decision), **self.metrics(moved, labels)}

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the id of the median label of each row."""
        from export.edge import choices

        return choices(self.probabilities(logits), "ordinal")
