"""Figures of merit for classifiers, through evaluate's interface over scikit-learn, offline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Bins of equal width that part confidences from 0 to 1, as in Guo et al. (2017).
BINS = 15
#: Metrics of which less is better.
_LESS_IS_BETTER = frozenset({"brier", "ece", "log_loss", "mae", "rmse"})


def higher_is_better(metric: str) -> bool:
    """Tell whether more of a metric is better, by its name."""
    return metric not in _LESS_IS_BETTER


def classification_metrics(
    logits_or_labels: NDArray[Any], references: NDArray[np.integer[Any]], labels: list[str]
) -> dict[str, float]:
    """Compute accuracy, the macro averages of F1, precision and recall, and correlation.

    Macro averages run over the classes that occur among the references: the same classes for every
    model that is compared on a split, whatever it predicts. A class that is never predicted has a
    precision of 0.

    Args:
        logits_or_labels: Predicted label ids, shape [N], or one score per label, shape [N, C], of
            which the highest counts.
        references: True label ids, shape [N].
        labels: The C label names that ids are positions in.

    Returns:
        ``accuracy``, ``macro_f1``, ``precision`` and ``recall``, each from 0 to 1;
        ``balanced_accuracy``, which is another name of that recall; ``mcc``, Matthews' correlation
        coefficient, 0 for what is as good as chance, 1 for perfect.

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
    metric = _metric_class("few")(keep_in_memory=True)
    result: dict[str, float] = metric.compute(predictions=predictions, references=references)
    return result


def all_metrics(
    predictions: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    references: NDArray[np.integer[Any]],
) -> dict[str, float]:
    """Compute every metric that is one number.

    Args:
        predictions: Label ids that are given, shape [N]; they need not be the likeliest.
        probabilities: Shape [N, C].
        references: True label ids, shape [N].

    Returns:
        What `classification_metrics` returns, and the metrics of `answer_metrics` and
        `probability_metrics`.
    """
    metric = _metric_class("all")(keep_in_memory=True)
    result: dict[str, float] = metric.compute(
        predictions=predictions, references=references, probabilities=probabilities
    )
    return result


def probability_metrics(
    probabilities: NDArray[np.floating[Any]], references: NDArray[np.integer[Any]]
) -> dict[str, float]:
    """Compute what probabilities are worth, whatever label is made of them.

    Args:
        probabilities: Shape [N, C], at least two classes; rows sum to 1.
        references: True label ids, shape [N].

    Returns:
        ``auroc`` and ``auprc``: areas under the ROC curve and (as average precision) under the
        precision-recall curve; of two classes those of the second, of more the mean over classes
        against the rest. Classes that all rows or none are of have no curve; without any curve both
        are left out. ``log_loss`` in nats, each probability at least 1e-15; ``brier``, the mean
        squared distance from 0 and 1, summed over classes, from 0 to 2; ``ece`` in `BINS` bins.
    """
    import numpy as np

    classes = probabilities.shape[1]
    truth = np.eye(classes, dtype=bool)[references]
    judged = slice(1, 2) if classes == 2 else slice(None)
    likely = probabilities[np.arange(len(references)), references]
    return {
        **areas(probabilities[:, judged], truth[:, judged]),
        "log_loss": float(-np.log(likely.clip(1e-15)).mean()),
        "brier": float(np.square(probabilities - truth).sum(axis=1).mean()),
        "ece": expected_calibration_error(probabilities, references),
    }


def areas(probabilities: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Compute the areas under curves of labels against the rest, as means over labels.

    Args:
        probabilities: Of each label, shape [N, C].
        truth: Whether a row has the label, shape [N, C].

    Returns:
        ``auroc`` and ``auprc`` (average precision). Labels that all rows or none have have no
        curve; without any curve both are left out.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score, roc_auc_score

    curves = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    columns = [(truth[:, place], probabilities[:, place]) for place in curves]
    if not columns:
        return {}
    return {
        "auroc": float(np.mean([roc_auc_score(*column) for column in columns])),
        "auprc": float(np.mean([average_precision_score(*column) for column in columns])),
    }


def answer_metrics(
    predictions: NDArray[np.integer[Any]], references: NDArray[np.integer[Any]]
) -> dict[str, float]:
    """Compute further averages over labels that were given.

    Args:
        predictions: Label ids, shape [N].
        references: True label ids, shape [N].

    Returns:
        ``weighted_`` precision, recall and F1, classes counting by their rows, and ``micro_`` ones,
        where all rows count alike: with one label a row all three are the accuracy.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    occur = np.unique(references).tolist()
    everything = np.union1d(references, predictions).tolist()
    found: dict[str, float] = {}
    for average, labels in (("weighted", occur), ("micro", everything)):
        *scores, _ = precision_recall_fscore_support(
            references, predictions, labels=labels, average=average, zero_division=0
        )
        names = ("precision", "recall", "f1")
        found |= {f"{average}_{name}": float(s) for name, s in zip(names, scores, strict=True)}
    return found


def class_metrics(
    predictions: NDArray[np.integer[Any]], references: NDArray[np.integer[Any]], labels: list[str]
) -> dict[str, Any]:
    """Judge each class by itself.

    Args:
        predictions: Label ids, shape [N].
        references: True label ids, shape [N].
        labels: The C label names that ids are positions in.

    Returns:
        ``labels``, for each name ``precision``, ``recall``, ``f1`` (0 where undefined) and its
        ``rows``; and ``confusion``, counts by true and given label, in the order of the labels.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    ids = list(range(len(labels)))
    columns = precision_recall_fscore_support(references, predictions, labels=ids, zero_division=0)
    names = ("precision", "recall", "f1", "rows")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "labels": {
            label: dict(zip(names, row, strict=True))
            for label, row in zip(labels, rows, strict=True)
        },
        "confusion": confusion_matrix(references, predictions, labels=ids).tolist(),
    }


def label_scores(
    given: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Judge each of several labels that rows can have together.

    Args:
        given: 1 where a row is given a label, else 0, shape [N, C].
        truth: 1 where it has it, shape [N, C].
        labels: The C names.

    Returns:
        For each name ``precision``, ``recall``, ``f1`` (0 where undefined) and its ``rows``.
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        as_labels(truth), as_labels(given), labels=range(len(labels)), average=None, zero_division=0
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    names = ("precision", "recall", "f1", "rows")
    return {
        label: dict(zip(names, row, strict=True)) for label, row in zip(labels, rows, strict=True)
    }


def label_averages(
    given: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]
) -> dict[str, float]:
    """Average precision, recall and F1 over the labels that occur, alike and by their rows.

    Args:
        given: As of `label_scores`.
        truth: As of `label_scores`.

    Returns:
        ``macro_`` and ``weighted_`` ``precision``, ``recall`` and ``f1``; nothing if none occurs.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    occur = np.flatnonzero(truth.any(axis=0))
    found: dict[str, float] = {}
    for average in ("macro", "weighted") if len(occur) else ():
        *scores, _ = precision_recall_fscore_support(
            as_labels(truth), as_labels(given), labels=occur, average=average, zero_division=0
        )
        names = ("precision", "recall", "f1")
        found |= {f"{average}_{name}": float(s) for name, s in zip(names, scores, strict=True)}
    return found


def as_labels(rows: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return 0 and 1 by label ``[N, C]`` in a form that scikit-learn takes for labels.

    One column it would take for two classes, and judge the answer no, too: beside it stands a label
    that no row has.
    """
    import numpy as np

    return rows if rows.shape[1] > 1 else np.pad(rows, ((0, 0), (0, 1)))


def counted_metrics(
    hits: NDArray[Any], given: NDArray[Any], there: NDArray[Any]
) -> dict[str, NDArray[np.floating[Any]]]:
    """Compute metrics of many sets of answers at once, from counts by class.

    Args:
        hits: Rows of a class that are given its label, ``[..., C]``.
        given: Rows that are given the label of a class, ``[..., C]``.
        there: Rows of a class, ``[..., C]``.

    Returns:
        ``accuracy``, ``macro_f1`` and ``balanced_accuracy``, each ``[...]``; the last two are means
        over the classes that occur, as in `classification_metrics`.
    """
    import numpy as np

    occurs = there > 0
    classes = np.maximum(1, occurs.sum(axis=-1))
    f1 = 2 * hits / np.maximum(1, given + there)
    return {
        "accuracy": hits.sum(axis=-1) / np.maximum(1, there.sum(axis=-1)),
        "macro_f1": (f1 * occurs).sum(axis=-1) / classes,
        "balanced_accuracy": (hits / np.maximum(1, there)).sum(axis=-1) / classes,
    }


def reliability(
    probabilities: NDArray[np.floating[Any]],
    references: NDArray[np.integer[Any]],
    bins: int = BINS,
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
    probabilities: NDArray[np.floating[Any]],
    references: NDArray[np.integer[Any]],
    bins: int = BINS,
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


def calibration_noise(
    probabilities: NDArray[np.floating[Any]], draws: int = 200
) -> tuple[float, float]:
    """Return what calibration error a perfectly calibrated model would be seen with.

    On few rows accuracies scatter, and the error, a mean of distances, is above 0 for any model.
    Labels are drawn from the probabilities themselves, which then hold by definition.

    Args:
        probabilities: Shape [N, C].
        draws: How often labels are drawn, from the same numbers at every call.

    Returns:
        The mean error, and that which 95% of the draws stay below.
    """
    import numpy as np

    chance, sums = np.random.default_rng(0), probabilities.cumsum(axis=1)
    errors = []
    for _ in range(draws):
        labels = (sums > chance.random((len(sums), 1)) * sums[:, -1:]).argmax(axis=1)
        errors.append(expected_calibration_error(probabilities, labels))
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def _macro(predictions: Any, references: Any) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    occur = sorted(set(references.tolist()))
    precision, recall, f1, _ = precision_recall_fscore_support(
        references, predictions, labels=occur, average="macro", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(references, predictions)),
        "macro_f1": float(f1),
        "balanced_accuracy": float(recall),  # which is what it is called where it stands alone
        "mcc": float(matthews_corrcoef(references, predictions)),
        "precision": float(precision),
        "recall": float(recall),
    }


@cache
def _metric_class(which: Literal["few", "all"]) -> type[Any]:
    # Built on first use: importing evaluate takes seconds. Subclassed rather than loaded by name:
    # evaluate.load() asks the Hub for the code of a metric.
    import evaluate
    from datasets import Features, Value
    from datasets import Sequence as Values

    inputs = {"predictions": Value("int64"), "references": Value("int64")}
    if which == "all":
        inputs["probabilities"] = Values(Value("float64"))

    class ClassificationMetrics(evaluate.Metric):  # type: ignore[misc]
        """Figures of answers and, if they are given, of probabilities."""

        def _info(self) -> Any:
            return evaluate.MetricInfo(
                description="Accuracy, F1, precision and recall as averages, and more.",
                citation="",
                inputs_description="Label ids as predictions and references; probabilities.",
                features=Features(inputs),
                # evaluate hands out rows of several numbers as lists only.
                format="numpy" if which == "few" else None,
            )

        def _build_data_dir(self) -> str:
            # All is kept in memory: leave no folder in the person's home, and need none.
            return ""

        def _compute(
            self, predictions: Any, references: Any, probabilities: Any = None
        ) -> dict[str, float]:
            import numpy as np

            answers = np.asarray(predictions), np.asarray(references)
            found = _macro(*answers)
            if probabilities is None:
                return found
            found |= answer_metrics(*answers)
            return found | probability_metrics(np.asarray(probabilities), answers[1])

    return ClassificationMetrics
