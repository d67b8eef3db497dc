from __future__ import annotations

import random
import socket
from pathlib import Path

import numpy as np
import pytest

from recipes.problems import problems
from recipes.problems.metrics import (
    all_metrics,
    calibration_noise,
    class_metrics,
    classification_metrics,
    expected_calibration_error,
    reliability,
)
from recipes.problems.resampling import interval, share_interval

LABELS = ["a", "b", "c"]


def test_macro_averages_by_hand() -> None:
    metrics = classification_metrics(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), LABELS)
    assert metrics == pytest.approx(
        {
            "accuracy": 3 / 4,
            "precision": (1 + 1 / 2 + 1) / 3,
            "recall": (1 + 1 + 1 / 2) / 3,
            "balanced_accuracy": (1 + 1 + 1 / 2) / 3,
            "macro_f1": (1 + 2 / 3 + 2 / 3) / 3,
            "mcc": (3 * 4 - 5) / (16 - 6),
        }
    )


def test_scores_count_by_their_highest() -> None:
    logits = np.array([[3.0, -1, 0], [0, 0.1, 0], [-3, -1, -2], [0, 1, 7]], dtype=np.float32)
    references = np.array([0, 1, 2, 2])
    by_id = classification_metrics(np.array([0, 1, 1, 2]), references, LABELS)
    assert classification_metrics(logits, references, LABELS) == by_id


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    metrics = classification_metrics(np.array([0, 0]), np.array([0, 1]), LABELS)
    assert metrics["precision"] == pytest.approx(0.25)
    assert metrics["recall"] == pytest.approx(0.5)


def test_averages_run_over_the_same_classes_whatever_is_predicted() -> None:
    references = np.array([0, 0, 1, 1])
    wrong_within = classification_metrics(np.array([0, 0, 1, 0]), references, LABELS)
    wrong_outside = classification_metrics(np.array([0, 0, 1, 2]), references, LABELS)
    assert wrong_outside["recall"] == wrong_within["recall"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        (np.array([0, 3]), np.array([0, 1])),
        (np.array([0, 1]), np.array([0, -1])),
        (np.array([0, 1]), np.array([0, 1, 2])),
        (np.zeros((2, 4)), np.array([0, 1])),
    ],
)
def test_what_does_not_fit_together_is_refused(
    predictions: np.ndarray, references: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"."):
        classification_metrics(predictions, references, LABELS)


def test_metrics_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    def refuse(*_: object) -> None:
        raise AssertionError("metrics must work offline")

    folder = tmp_path / "cache"
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = random.getstate(), np.random.get_state()[1].tolist()
    classification_metrics(np.array([0, 1]), np.array([0, 1]), LABELS)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert list(tmp_path.iterdir()) == []


def test_reliability_by_hand() -> None:
    sure = np.array([0.55, 0.58, 0.92, 0.98, 1.0])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    references = np.array([0, 1, 0, 0, 1])
    parts = reliability(probabilities, references, bins=10)
    assert parts == [
        (pytest.approx(0.565), 0.5, 2),
        (pytest.approx(2.9 / 3), pytest.approx(2 / 3), 3),
    ]
    error = (2 * 0.065 + 3 * (2.9 / 3 - 2 / 3)) / 5
    assert expected_calibration_error(probabilities, references, 10) == pytest.approx(error)


def test_a_calibrated_model_has_no_error() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == 0


def answers(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, labels and given labels, which are not always the likeliest."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, classes, rows)
    powers = np.exp(chance.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth])
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return probabilities, truth, (probabilities * np.arange(1, classes + 1)).argmax(axis=1)


@pytest.mark.parametrize("classes", [2, 5])
def test_every_figure_is_scikit_learns(classes: int) -> None:
    from sklearn import metrics

    probabilities, truth, given = answers(300, classes)
    found = all_metrics(given, probabilities, truth)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    one_hot = truth if classes == 2 else np.eye(classes)[truth]
    expected = {
        **classification_metrics(given, truth, list(map(str, range(classes)))),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, given),
        "mcc": metrics.matthews_corrcoef(truth, given),
        "auroc": metrics.roc_auc_score(truth, scores, multi_class="ovr"),
        "auprc": metrics.average_precision_score(one_hot, scores),
        "log_loss": metrics.log_loss(truth, probabilities),
        "brier": np.square(probabilities - np.eye(classes)[truth]).sum() / 300,
        "ece": expected_calibration_error(probabilities, truth, bins=15),
    }
    for average in ("micro", "weighted"):
        for name in ("precision", "recall", "f1"):
            score = getattr(metrics, f"{name}_score")
            expected[f"{average}_{name}"] = score(truth, given, average=average)
    assert found == pytest.approx(expected)
    if classes == 2:
        assert found["brier"] == pytest.approx(2 * metrics.brier_score_loss(truth, scores))


def test_a_class_without_rows_has_no_curve_and_is_no_error() -> None:
    probabilities, truth, given = answers(200, 4)
    seen = truth < 3
    found = all_metrics(given[seen], probabilities[seen], truth[seen])
    assert all(np.isfinite(value) for value in found.values())
    alone = all_metrics(given[truth == 0], probabilities[truth == 0], truth[truth == 0])
    assert "auroc" not in alone
    assert all(np.isfinite(value) for value in alone.values())


def test_figures_of_each_label() -> None:
    _, truth, given = answers(200, 3)
    found = class_metrics(given, truth, LABELS)
    counts = np.array(found["confusion"])
    assert counts.sum(axis=1).tolist() == [found["labels"][name]["rows"] for name in LABELS]
    macro = classification_metrics(given, truth, LABELS)
    for name, mean in (("precision", "precision"), ("recall", "recall"), ("f1", "macro_f1")):
        each = [found["labels"][label][name] for label in LABELS]
        assert np.mean(each) == pytest.approx(macro[mean])


def test_what_is_calibrated_is_seen_with_an_error_on_few_rows() -> None:
    chance = np.random.default_rng(0)
    means = []
    for rows in (100, 10_000):
        probabilities, _, _ = answers(rows, 3)
        mean, high = calibration_noise(probabilities)
        labels = (probabilities.cumsum(axis=1) > chance.random((rows, 1))).argmax(axis=1)
        assert expected_calibration_error(probabilities, labels) < 1.5 * high
        means.append(mean)
    assert means[0] > 5 * means[1]


# --- Intervals --------------------------------------------------------------------------------


def test_a_drawn_figure_is_the_metric_of_the_drawn_rows() -> None:
    """Where all rows are of few kinds, so that a draw can be made by hand."""
    problem = problems.get("single_label")(LABELS)
    logits, truth = np.eye(3)[[0, 1, 2, 2, 1, 0]], [0, 1, 2, 1, 1, 2]
    found = problem.resampled([logits, np.eye(3)[truth]], truth, draws=400)
    assert found["accuracy"].shape == (2, 400)
    assert (found["accuracy"][1] == 1).all()
    assert (found["macro_f1"][1] == 1).all()
    assert set((found["accuracy"][0] * 6).round(9)) <= set(range(7))
    again = problem.resampled([logits], truth, draws=400)
    assert interval(again["accuracy"][0]) == pytest.approx(interval(found["accuracy"][0]), abs=0.2)


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(figure: str) -> None:
    problem = problems.get("single_label")(LABELS)
    whole, labels, _ = answers(60_000, 3)
    scores = problem.metrics(np.log(whole), labels.tolist())
    within = []
    for start in range(0, 60_000, 300):
        part = slice(start, start + 300)
        values = problem.resampled([np.log(whole[part])], labels[part].tolist(), draws=400)
        low, high = interval(values[figure][0])
        within.append(low <= scores[figure] <= high)
    assert 0.9 <= np.mean(within) <= 0.985


@pytest.mark.parametrize("kind", ["multi_label", "ordinal", "regression"])
def test_other_problems_have_intervals_too(kind: str) -> None:
    chance = np.random.default_rng(0)
    labels = LABELS[: 1 if kind == "regression" else 3]
    facts = {"scale": {"mean": 0.0, "deviation": 1.0}}
    problem = problems.get(kind)(labels, (), facts)
    ids = chance.integers(0, 3, 200)
    truth = {
        "multi_label": [tuple(row) for row in chance.integers(0, 2, (200, 3)).tolist()],
        "regression": ids.astype(float).tolist(),
    }.get(kind, ids.tolist())
    target = np.eye(3)[ids] if kind == "ordinal" else np.asarray(truth, float).reshape(200, -1)
    models = [4 * target + chance.normal(0, noise, target.shape) for noise in (0.5, 3)]
    if kind == "regression":
        models = [logits / 4 for logits in models]
    found = problem.resampled(models, truth, draws=500)
    one, other = found[problem.headline]
    assert np.mean(one > other) > 0.97
    for values, logits in zip((one, other), models, strict=True):
        low, high = interval(values)
        assert low <= problem.metrics(logits, truth)[problem.headline] <= high


def test_a_share_of_few_rows_is_not_certain() -> None:
    low, high = share_interval(1.0, 10)
    assert 0.6 < low < 0.8
    assert high == pytest.approx(1)


def test_one_label_that_a_row_may_have_is_judged_by_its_own_rows() -> None:
    """The answer no is no label, as little as where there are several."""
    problem = problems.get("multi_label")(["urgent"], [(1,), (0,)])
    truth = [(1,), (1,), (1,), (0,), (0,), (0,)]
    logits = np.array([[2.0], [2.0], [-2.0], [2.0], [-2.0], [-2.0]])
    found = problem.all_metrics(logits, truth)
    two_thirds = ("micro_f1", "macro_f1", "weighted_f1", "precision", "recall", "macro_recall")
    assert {name: found[name] for name in two_thirds} == pytest.approx(
        dict.fromkeys(two_thirds, 2 / 3)
    )
    assert problem.by_class(logits, truth)["labels"] == {
        "urgent": pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "rows": 3})
    }
    nobody = problem.metrics(logits, [(0,)] * 6)
    assert nobody["micro_f1"] == nobody["macro_f1"] == 0
