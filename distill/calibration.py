"""How certain a teacher may be: a temperature fitted on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: The temperatures that are considered. A teacher that is right about every validation row would
#: be given 0, and its answers would say no more than the labels.
_RANGE = (0.25, 10.0)
#: Halvings of the range; 50 leave less than a float32 can tell.
_STEPS = 50


def fit_temperature(
    logits: np.ndarray, labels: Sequence[int] | np.ndarray, smoothing: float = 0.0
) -> float:
    """Find the temperature that makes probabilities as certain as they are right.

    Logits divided by it have the least mean negative log-likelihood (Guo et al., 2017,
    arXiv:1706.04599). The most probable label of a row stays the same.

    Args:
        logits: Logits of a model ``[rows, classes]`` on rows that it did not learn from; at least
            one row.
        labels: Label ids ``[rows]``.
        smoothing: Share of each row that the other labels have, which keeps a model that is right
            about all of a few rows from becoming certain: 1 / (rows + 2) is what Platt (1999) gives
            a class without a row.

    Returns:
        The temperature, 0.25 to 10: above 1 for a model that is too certain. On these rows the
        log-likelihood with it, smoothed likewise, is never worse than with 1.
    """
    import numpy as np

    scores = np.asarray(logits, np.float64)
    right = np.take_along_axis(scores, np.asarray(labels, np.int64)[:, None], axis=1)[:, 0]
    others = (scores.sum(axis=1) - right) / max(1, scores.shape[1] - 1)
    right = (1 - smoothing) * right + smoothing * others

    def loss(temperature: float) -> float:
        return float((_log_sum(scores / temperature) - right / temperature).mean())

    def slope(temperature: float) -> float:
        """The loss is convex in 1 / temperature; this is its derivative there."""
        scaled = scores / temperature
        probabilities = np.exp(scaled - _log_sum(scaled)[:, None])
        return float(((probabilities * scores).sum(axis=1) - right).mean())

    low, high = np.log(_RANGE)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if slope(np.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    found = float(np.exp((low + high) / 2))
    return found if loss(found) < loss(1.0) else 1.0


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """Return the logarithm of the sum of exponentials of each row."""
    import numpy as np

    highest = scores.max(axis=1)
    total: np.ndarray = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1))
    return total
