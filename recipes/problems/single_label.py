"""Exactly one of several labels; with two labels it is what is called binary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.problems import Problem, problems
from recipes.problems.decision import AMONG_LABELS, AS_IT_IS, Decision, OffsetSearch
from recipes.problems.resampling import DRAWS, drawn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@problems.register("single_label")
class SingleLabel(Problem):
    """Exactly one of several labels; labels of rows are their ids, ``[rows]``."""

    headline = "accuracy"
    decides: ClassVar[frozenset[str]] = frozenset({"calibrate", "offsets", "precision"})
    offset_search: ClassVar[OffsetSearch | None] = AMONG_LABELS
    shift_free = True
    exclusive = True

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

        # In the midst of phases a model has no logits yet for labels that come later.
        known = list(self.labels[: logits.shape[1]])
        return classification_metrics(logits, np.asarray(labels), known)

    def all_metrics(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, float]:
        """Return every figure of answers and probabilities; see `recipes.problems.metrics`."""
        import numpy as np

        from recipes.problems.metrics import all_metrics

        return all_metrics(
            self.answers(decision.moved(logits, self.labels)),
            self.probabilities(logits / decision.temperature),
            np.asarray(labels),
        )

    def by_class(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, Any]:
        """Return precision, recall, F1 and rows of each label, and the confusion matrix."""
        import numpy as np

        from recipes.problems.metrics import class_metrics

        answers = self.answers(decision.moved(logits, self.labels))
        return class_metrics(answers, np.asarray(labels), list(self.labels))

    def resampled(
        self, models: Sequence[np.ndarray], labels: Sequence[Any], draws: int = DRAWS
    ) -> dict[str, np.ndarray]:
        """Return accuracy and macro F1; see `Problem.resampled`."""
        import numpy as np

        from recipes.problems.metrics import counted_metrics

        answers = [np.asarray(labels), *(self.answers(logits) for logits in models)]
        kinds, times = drawn(np.stack(answers, axis=1), draws)
        one_hot = np.eye(len(self.labels))
        truth, there = kinds[:, 0], times @ one_hot[kinds[:, 0]]
        figures = [
            counted_metrics(
                times @ (one_hot[given] * (given == truth)[:, None]), times @ one_hot[given], there
            )
            for given in kinds[:, 1:].T
        ]
        return {name: np.stack([f[name] for f in figures]) for name in ("accuracy", "macro_f1")}

    def told_labels(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the label that is chosen of each row; see `Problem.told_labels`.

        Its probability is without the offsets, and computed as the edge runtime does, to the last
        bit.
        """
        import numpy as np

        chosen = self.answers(decision.moved(logits, self.labels))
        shares = self.probabilities(logits.astype(np.float64) / decision.temperature)
        sure: np.ndarray = np.take_along_axis(shares, chosen[:, None], axis=1)[:, 0]
        return chosen, sure, chosen == np.asarray(labels)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax of the logits."""
        from export.edge import probabilities

        return probabilities(logits, "single_label")

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the id of each row's highest logit."""
        return logits.argmax(axis=1)  # type: ignore[no-any-return]
