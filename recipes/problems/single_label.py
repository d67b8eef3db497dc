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
    exclusive = True

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, labels)

    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return accuracy, and F1, precision and recall averaged over classes."""
        import numpy as np

        from recipes.problems.metrics import classification_metrics

        return classification_metrics(logits, np.asarray(labels), list(self.labels))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax of the logits."""
        import numpy as np

        exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Tell for each row whether the highest logit is that of the same label."""
        return one.argmax(axis=1) == other.argmax(axis=1)  # type: ignore[no-any-return]
