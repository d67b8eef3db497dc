"""Figures of merit for classifiers, through evaluate's interface over scikit-learn, offline."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Metrics of which less is better.
_LESS_IS_BETTER = frozenset({"brier", "ece", "log_loss", "mae", "rmse"})


def higher_is_better(metric: str) -> bool:
    """Tell whether more of a metric is better, by its name."""
    return metric not in _LESS_IS_BETTER


def classification_metrics(
    logits_or_labels: NDArray[Any], references: NDArray[np.integer[Any]], labels: list[str]
) -> dict[str, float]:
    """Compute accuracy and the macro averages of F1, precision and recall.

    Macro averages run over the classes that occur among the references: the same classes for every
    model that is compared on a split, whatever it predicts. A class that is never predicted has a
    precision of 0.

    Args:
        logits_or_labels: Predicted label ids, shape [N], or one score per label, shape [N, C], of
            which the highest counts.
        references: True label ids, shape [N].
        labels: The C label names that ids are positions in.

    Returns:
        ``accuracy``, ``macro_f1``, ``precision`` and ``recall``, each from 0 to 1.

    Raises:
        ValueError: Shapes do not match, or an id or a column has no label.
    """
    predictions = logits_or_labels
    if logits_or_labels.ndim == 2:
        if logits_or_labels.shape[1] != len(labels):
            raise ValueError(
                f"Scores for {logits_or_labels.shape[1]} labels, but {len(labels)} label names."
            )
        predictions = logits_or_labels.argmax(axis=1)
    for ids in (predictions, references):
        if ids.min(initial=0) < 0 or ids.max(initial=0) >= len(labels):
            raise ValueError(f"Label ids {ids.min()} to {ids.max()}, but {len(labels)} names.")
    metric = _metric_class()(keep_in_memory=True)
    result: dict[str, float] = metric.compute(predictions=predictions, references=references)
    return result


def reliability(
    probabilities: NDArray[np.floating[Any]], references: NDArray[np.integer[Any]], bins: int = 10
) -> list[tuple[float, float, int]]:
    """Sort predictions into bins of equal width by confidence; compare with how often they hold.

    Args:
        probabilities: One row per example and one column per label, shape [N, C].
        references: True label ids, shape [N].
        bins: How many bins part the confidences from 0 to 1.

    Returns:
        Mean confidence, accuracy and number of examples of each bin that is not empty, by rising
        confidence.
    """
    import numpy as np

    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == references
    # A confidence on an edge belongs to the bin above; 1 to the last.
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[inside].mean()), float(correct[inside].mean()), int(inside.sum()))
        for inside in (which == number for number in range(bins))
        if inside.any()
    ]


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], references: NDArray[np.integer[Any]], bins: int = 10
) -> float:
    """Return the mean distance of confidence and accuracy over the bins (Guo et al., 2017).

    Args:
        probabilities: Shape [N, C].
        references: True label ids, shape [N].
        bins: How many bins part the confidences from 0 to 1.

    Returns:
        The distance, from 0 (calibrated) to 1, each bin counting by its number of examples.
    """
    parts = reliability(probabilities, references, bins)
    return sum(count * abs(sure - right) for sure, right, count in parts) / len(references)


@cache
def _metric_class() -> type[Any]:
    # Built on first use: importing evaluate takes seconds. Subclassed rather than loaded by name:
    # evaluate.load() asks the Hub for the code of a metric.
    import evaluate
    from datasets import Features, Value
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    class ClassificationMetrics(evaluate.Metric):  # type: ignore[misc]
        """Accuracy and macro averages in one pass."""

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description="Accuracy, and F1, precision and recall as macro averages.",
                citation="",
                inputs_description="Label ids as predictions and references.",
                features=Features({"predictions": Value("int64"), "references": Value("int64")}),
                format="numpy",
            )

        def _build_data_dir(self) -> str:
            # All is kept in memory: leave no folder in the person's home, and need none.
            return ""

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            precision, recall, f1, _ = precision_recall_fscore_support(
                references,
                predictions,
                labels=sorted(set(references.tolist())),
                average="macro",
                zero_division=0,
            )
            return {
                "accuracy": float(accuracy_score(references, predictions)),
                "macro_f1": float(f1),
                "precision": float(precision),
                "recall": float(recall),
            }

    return ClassificationMetrics
