from __future__ import annotations

import random
import socket
from pathlib import Path

import numpy as np
import pytest

from recipes.problems.metrics import (
    classification_metrics,
    expected_calibration_error,
    reliability,
)

LABELS = ["a", "b", "c"]


def test_macro_averages_by_hand() -> None:
    metrics = classification_metrics(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), LABELS)
    assert metrics == pytest.approx(
        {
            "accuracy": 3 / 4,
            "precision": (1 + 1 / 2 + 1) / 3,
            "recall": (1 + 1 + 1 / 2) / 3,
            "macro_f1": (1 + 2 / 3 + 2 / 3) / 3,
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
    parts = reliability(probabilities, references)
    assert parts == [
        (pytest.approx(0.565), 0.5, 2),
        (pytest.approx(2.9 / 3), pytest.approx(2 / 3), 3),
    ]
    error = (2 * 0.065 + 3 * (2.9 / 3 - 2 / 3)) / 5
    assert expected_calibration_error(probabilities, references) == pytest.approx(error)


def test_a_calibrated_model_has_no_error() -> None:
    probabilities = np.tile([0.75, 0.25], (4, 1))
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1])) == 0
