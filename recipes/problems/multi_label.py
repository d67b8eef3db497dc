"""Any number of several labels, none included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from export.edge import LEAST, probabilities
from recipes.problems import Problem, problems
from recipes.problems.classes import UNLABELLED, Classes
from recipes.problems.decision import AS_IT_IS, OWN, Decision, averaged_f1
from recipes.problems.resampling import DRAWS, drawn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@problems.register("multi_label")
class MultiLabel(Problem):
    """Any number of several labels; those of a row are a tuple of 0 and 1, one for each label."""

    headline = "micro_f1"
    kind = "multi_label_classification"
    decides: ClassVar[frozenset[str]] = frozenset({"calibrate", "offsets", "precision"})
    offset_search = OWN
    least = LEAST

    @property
    def unlabelled(self) -> Any:
        """What a text without labels has, which is not the same as having none of them."""
        return (UNLABELLED,) * len(self.labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean binary cross-entropy over rows and labels, in nats."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def classes(self, labels: Sequence[Any]) -> Classes:
        """Return the rarest label of each row; see `Classes.of_sets`."""
        return Classes.of_sets(labels, len(self.labels))

    def constant(self) -> np.ndarray:
        """Return the logarithms of each label's odds."""
        import numpy as np

        counts = np.asarray(self.train).sum(axis=0)
        odds: np.ndarray = np.log((counts + 1) / (len(self.train) - counts + 1))
        return odds

    def metrics(self, logits: np.ndarray, labels: Sequence[Any]) -> dict[str, float]:
        """Return F1, precision and recall over all decisions, and more.

        ``micro_f1``, ``precision`` and ``recall`` count every decision alike; ``macro_f1`` is the
        mean over the labels that occur; ``accuracy`` the share of rows with all labels right;
        ``hamming`` the share of single decisions that are right.
        """
        import numpy as np
        from sklearn.metrics import f1_score, precision_recall_fscore_support

        from recipes.problems.metrics import as_labels

        given, truth = self.answers(logits), np.asarray(labels)
        both = as_labels(truth), as_labels(given)
        precision, recall, f1, _ = precision_recall_fscore_support(
            *both, average="micro", zero_division=0
        )
        occurs = np.flatnonzero(truth.any(axis=0))
        macro = f1_score(*both, labels=occurs, average="macro", zero_division=0)
        return {
            "micro_f1": float(f1),
            "macro_f1": float(macro) if len(occurs) else 0.0,
            "precision": float(precision),
            "recall": float(recall),
            "accuracy": float((given == truth).all(axis=1).mean()),
            "hamming": float((given == truth).mean()),
        }

    def all_metrics(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, float]:
        """Return every figure of answers and probabilities.

        Besides `metrics`: averages of precision, recall and F1 over the labels that occur
        (``macro_``, and ``weighted_`` by their rows), AUROC and AUPRC as means over labels, and log
        loss, Brier score and calibration error of all single decisions.
        """
        import numpy as np

        from recipes.problems.metrics import areas, label_averages, probability_metrics

        truth, moved = np.asarray(labels), decision.moved(logits, self.labels)
        calibrated = logits / decision.temperature
        shares, right = self.choices(calibrated, labels)
        found = probability_metrics(probabilities(shares, "single_label"), right)
        return {
            **self.metrics(moved, labels),
            **label_averages(self.answers(moved), truth),
            **areas(self.probabilities(calibrated), truth.astype(bool)),
            **{name: found[name] for name in ("log_loss", "brier", "ece")},
        }

    def by_class(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision = AS_IT_IS
    ) -> dict[str, Any]:
        """Return precision, recall, F1 and rows of each label."""
        import numpy as np

        from recipes.problems.metrics import label_scores

        answers = self.answers(decision.moved(logits, self.labels))
        return {"labels": label_scores(answers, np.asarray(labels), self.labels)}

    def choices(self, logits: np.ndarray, labels: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return a choice between no and yes for each row and label."""
        import numpy as np

        odds = np.asarray(logits, np.float64).reshape(-1)
        return np.stack([np.zeros_like(odds), odds], axis=1), np.asarray(labels).reshape(-1)

    def told_labels(
        self, logits: np.ndarray, labels: Sequence[Any], decision: Decision
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return every label that is given; its probability is with the offsets."""
        import numpy as np

        sure = self.probabilities(decision.moved(logits, self.labels))
        rows, places = np.nonzero(sure >= self.least)
        return places, sure[rows, places], np.asarray(labels)[rows, places] == 1

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return each label's own probability."""
        return probabilities(logits, "multi_label")

    def resampled(
        self, models: Sequence[np.ndarray], labels: Sequence[Any], draws: int = DRAWS
    ) -> dict[str, np.ndarray]:
        """Return both averages of F1; see `Problem.resampled`."""
        import numpy as np

        answers = [np.asarray(labels), *(self.answers(logits) for logits in models)]
        kinds, times = drawn(np.stack(answers, axis=1), draws)
        truth, there = kinds[:, 0], times @ kinds[:, 0]
        micro, macro = [], []
        for given in kinds[:, 1:].swapaxes(0, 1):
            hits, told = times @ (given * truth), times @ given
            micro.append(averaged_f1(hits, told, there, "micro_f1"))
            macro.append(averaged_f1(hits, told, there, "macro_f1"))
        return {"micro_f1": np.stack(micro), "macro_f1": np.stack(macro)}

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return 1 for each label whose probability reaches one half, else 0."""
        return (self.probabilities(logits) >= LEAST).astype(int)

    def told(self, answer: Any) -> str:
        """Name the labels."""
        given = [label for label, there in zip(self.labels, answer, strict=True) if there > 0]
        return ", ".join(given) or "(no label)"
