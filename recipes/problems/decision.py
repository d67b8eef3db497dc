"""From logits to an answer: a temperature, offsets and thresholds, fitted on validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Offsets that are tried: a factor of up to 55 on a label's odds, in steps of a tenth.
_FARTHEST, _STEPS = 4.0, 80
#: Rounds over all labels, after which offsets are left as they are.
_ROUNDS = 5
_FOLDS, _REPEATS = 5, 4


@dataclass(frozen=True)
class Decision:
    """What a bundle does to logits besides the softmax; see ``export/bundle.py``.

    Attributes:
        temperature: What logits are divided by.
        offsets: Label to what is added to its log-probability; empty for nothing.
        thresholds: Label to the least probability with which it is given; empty for none.
    """

    temperature: float = 1.0
    offsets: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Decision:
        """Return the decision that a ledger row tells of; nothing is done if it tells of none."""
        return cls(**{each.name: row[each.name] for each in fields(cls) if each.name in row})

    def moved(self, logits: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Return what answers are chosen by ``[rows, labels]``, as the edge runtime does."""
        import numpy as np

        offsets = np.array([self.offsets.get(label, 0.0) for label in labels])
        moved: np.ndarray = logits.astype(np.float64) / self.temperature + offsets
        return moved

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


#: Nothing but the softmax, or what stands in its place.
AS_IT_IS = Decision()


def fit_offsets(scores: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """Find what to add to scores so that the highest ones are best by a metric.

    One label after the other gets the best of the offsets that are tried while all others keep
    theirs; of equally good ones the smallest. So do the rounds go until nothing gets better.

    Args:
        scores: Log-probabilities, up to a constant a row, ``[rows, labels]``.
        labels: Label ids ``[rows]``.
        metric: One of `recipes.problems.metrics.counted_metrics`.

    Returns:
        Offsets ``[labels]``, -4 to 4.
    """
    import numpy as np

    tried = np.linspace(-_FARTHEST, _FARTHEST, 2 * (_STEPS // 2) + 1)
    offsets = np.zeros(scores.shape[1])
    for _ in range(_ROUNDS):
        before = offsets.copy()
        for place in range(len(offsets)):
            found = _by_offset(scores + offsets, labels, place, tried - offsets[place], metric)
            now = found[np.abs(tried - offsets[place]).argmin()]
            best = np.flatnonzero(found >= found.max() - 1e-12)
            if found.max() > now + 1e-12:
                offsets[place] = tried[best[np.abs(tried[best]).argmin()]]
        if (offsets == before).all():
            break
    return offsets


def _by_offset(
    scores: np.ndarray, labels: np.ndarray, place: int, tried: np.ndarray, metric: str
) -> np.ndarray:
    """Return a metric for each offset of one label ``[tried]``.

    A row gets the label from the offset on that lifts it over the best other one. Counted by these
    steps, all offsets are judged in one pass over the rows.
    """
    import numpy as np

    from recipes.problems.metrics import counted_metrics

    size, steps = scores.shape[1], len(tried) + 1
    others = scores.copy()
    others[:, place] = -np.inf
    second = others.argmax(axis=1)
    gap = others.max(axis=1) - scores[:, place]
    step = np.searchsorted(tried, gap, side="right")

    def risen(rows: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Count rows by the label in ``to`` that have got the label in question, by offset."""
        cells = np.bincount(step[rows] * size + to[rows], minlength=steps * size)
        counts: np.ndarray = cells.reshape(steps, size).cumsum(axis=0)[:-1]
        return counts

    every, right = np.ones(len(labels), bool), second == labels
    given = np.bincount(second, minlength=size) - risen(every, second)
    given[:, place] = risen(every, second).sum(axis=1)
    hits = np.bincount(second[right], minlength=size) - risen(right, second)
    hits[:, place] = risen(labels == place, second).sum(axis=1)
    there = np.bincount(labels, minlength=size)
    return counted_metrics(hits, given, np.broadcast_to(there, given.shape))[metric]


def judge(scores: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """Return a metric of the labels with the highest scores ``[rows, labels]``."""
    import numpy as np

    from recipes.problems.metrics import counted_metrics

    size, chosen = scores.shape[1], scores.argmax(axis=1)
    counts = (labels[chosen == labels], chosen, labels)
    found = counted_metrics(*(np.bincount(ids, minlength=size) for ids in counts))
    return float(found[metric])


def offsets_gain(scores: np.ndarray, labels: np.ndarray, metric: str) -> list[float]:
    """Return what offsets gain on rows that they were not fitted on.

    Each repeat parts the rows into folds, by label, and judges all rows with offsets of the other
    folds at once.

    Args:
        scores: As of `fit_offsets`.
        labels: Label ids ``[rows]``.
        metric: As of `fit_offsets`.

    Returns:
        The metric with offsets less that without, for each repeat.
    """
    import numpy as np

    plain, gains = judge(scores, labels, metric), []
    for repeat in range(_REPEATS):
        order = np.random.default_rng(repeat).permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        moved = scores.copy()
        for fold in range(_FOLDS):
            held = order[fold::_FOLDS]
            rest = np.setdiff1d(order, held)
            moved[held] += fit_offsets(scores[rest], labels[rest], metric)
        gains.append(judge(moved, labels, metric) - plain)
    return gains


def fit_threshold(
    sure: np.ndarray, right: np.ndarray, precision: float, confidence: float | None
) -> float | None:
    """Find the probability from which on answers are as precise as wished.

    Of all such probabilities the lowest is taken: it leaves the fewest texts without an answer.

    Args:
        sure: Probability of the label that is chosen, ``[rows]``.
        right: Whether it is right, ``[rows]``.
        precision: Wished share of right answers among those given.
        confidence: How sure to be of it: the lower end of the one-sided interval of Clopper and
            Pearson (1934) has to reach the precision. The interval is that of a threshold that was
            not chosen by the same rows; as the best of many it is a little too hopeful. None asks
            for the share on these rows alone.

    Returns:
        The probability; None if no threshold gives the precision.
    """
    import numpy as np
    from scipy.stats import beta  # type: ignore[import-untyped, unused-ignore]

    order = np.argsort(-sure, kind="stable")
    given = np.arange(1, len(order) + 1)
    hits = right[order].cumsum()
    reached = hits / given
    if confidence is not None:
        reached = np.where(hits > 0, beta.ppf(1 - confidence, hits, given - hits + 1), 0.0)
    # Rows of the same probability are given together.
    last = np.append(sure[order][1:] < sure[order][:-1], True)
    enough = np.flatnonzero((reached >= precision) & last)
    return float(sure[order][enough[-1]]) if len(enough) else None


def selective(sure: np.ndarray, right: np.ndarray, least: np.ndarray | float) -> dict[str, float]:
    """Return ``coverage``, the share of rows with an answer, and ``precision`` among them.

    The precision is left out where there is no answer.
    """
    given = sure >= least
    found = {"coverage": float(given.mean())}
    return found | ({"precision": float(right[given].mean())} if given.any() else {})
