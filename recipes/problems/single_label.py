"""Exactly one of several labels; with two labels it is what is called binary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.problems import Problem, problems
from recipes.problems.decision import AS_IT_IS, Decision
from recipes.problems.resampling import DRAWS, drawn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from recipes.recipe import DecideSettings


@problems.register("single_label")
class SingleLabel(Problem):
    """Exactly one of several labels; labels of rows are their ids, ``[rows]``."""

    headline = "accuracy"
    decides: ClassVar[frozenset[str]] = frozenset({"calibrate", "offsets", "precision"})
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

    def decided(
        self, logits: np.ndarray, labels: Sequence[Any], settings: DecideSettings
    ) -> tuple[Decision, dict[str, Any]]:
        """Fit temperature, offsets and threshold, in this order; see `Problem.decided`."""
        import numpy as np

        from distill.calibration import fit_temperature
        from recipes.problems import decision as fitting

        facts: dict[str, Any] = {}
        truth = np.asarray(labels)
        found = Decision()
        if settings.calibrate:
            found = Decision(fit_temperature(logits, truth, smoothing=1 / (len(truth) + 2)))
        if settings.offsets is not None:
            scores, metric = found.moved(logits, self.labels), settings.offsets
            gains = fitting.offsets_gain(scores, truth, metric)
            kept = min(gains) > 0
            offsets = fitting.fit_offsets(scores, truth, metric)
            by_label = dict(zip(self.labels, offsets.round(6).tolist(), strict=True))
            facts["offsets"] = {"metric": metric, "gains": gains, "kept": kept, "fitted": by_label}
            found = Decision(found.temperature, by_label if kept else {})
        if settings.precision is not None:
            sure, right = self._chosen(logits, truth, found)
            least = fitting.fit_threshold(sure, right, settings.precision, settings.confidence)
            facts["precision"] = {
                "wished": settings.precision,
                "confidence": settings.confidence,
                "threshold": least,
            }
            thresholds = {} if least is None else dict.fromkeys(self.labels, least)
            found = Decision(found.temperature, found.offsets, thresholds)
        return found, facts

    def selective(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision
    ) -> dict[str, float]:
        """Return the share of rows that get an answer, and how many of these are right."""
        import numpy as np

        from recipes.problems import decision as fitting

        chosen = self.answers(decision.moved(logits, self.labels))
        least = np.array([decision.thresholds.get(label, 0.0) for label in self.labels])
        sure, right = self._chosen(logits, np.asarray(labels), decision)
        return fitting.selective(sure, right, least[chosen])

    def _chosen(
        self, logits: np.ndarray, truth: np.ndarray, decision: Decision
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of the label that is chosen, and whether it is right, ``[rows]``.

        A probability of single-row logits is computed as the edge runtime does, to the last bit.
        """
        import numpy as np

        chosen = self.answers(decision.moved(logits, self.labels))
        shares = self.probabilities(logits.astype(np.float64) / decision.temperature)
        sure: np.ndarray = np.take_along_axis(shares, chosen[:, None], axis=1)[:, 0]
        return sure, chosen == truth

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the softmax of the logits."""
        from export.edge import probabilities

        return probabilities(logits, "single_label")

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the id of each row's highest logit."""
        return logits.argmax(axis=1)  # type: ignore[no-any-return]
