"""Exactly one of several labels; with two labels it is what is called binary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.problems import Problem, problems

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@problems.register("single_label")
class SingleLabel(Problem):
    """Exactly one of several labels; labels of rows are their ids, ``[rows]``."""

    headline = "accuracy"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def constant(self) -> np.ndarray:
        """Return the logarithms of the labels' shares."""
        import numpy as np

        counts = np.bincount(self.train, minlength=len(self.labels)) + 1
        return np.log(counts / counts.sum())  # type: ignore[no-any-return]

    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return accuracy, and F1, precision and recall averaged over classes."""
        import numpy as np

        from recipes.problems.metrics import classification_metrics

        return classification_metrics(logits, np.asarray(labels), list(self.labels))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax of the logits."""
        from export.edge import probabilities

        return probabilities(logits, "single_label")

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the id of each row's highest logit."""
        return logits.argmax(axis=1)  # type: ignore[no-any-return]
