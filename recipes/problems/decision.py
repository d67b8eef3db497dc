"""From logits to an answer: a temperature, offsets and thresholds, fitted on validation rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from recipes.problems import Problem
    from recipes.recipe import DecideSettings

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


class OffsetSearch(NamedTuple):
    """How a problem type finds offsets, and what it can find them for.

    Attributes:
        metrics: Names of the metrics.
        fit: Of scores ``[rows, labels]``, the rows' labels and a metric makes offsets ``[labels]``.
        judge: Of the same makes the metric.
    """

    metrics: tuple[str, ...]
    fit: Callable[[np.ndarray, np.ndarray, str], np.ndarray]
    judge: Callable[[np.ndarray, np.ndarray, str], float]


def fit_decision(
    problem: Problem, logits: np.ndarray, labels: Sequence[Any], settings: DecideSettings
) -> tuple[Decision, dict[str, Any]]:
    """Fit temperature, offsets and thresholds, in this order; see `Problem.decided`."""
    import numpy as np

    from distill.calibration import fit_temperature

    facts: dict[str, Any] = {}
    found, truth, names = Decision(), np.asarray(labels), problem.labels
    if settings.calibrate:
        scores, right = problem.choices(logits, labels)
        found = Decision(fit_temperature(scores, right, smoothing=1 / (len(right) + 2)))
    if settings.offsets is not None and problem.offset_search is not None:
        search, metric = problem.offset_search, settings.offsets
        scores = found.moved(logits, names)
        gains = offsets_gain(scores, truth, metric, search)
        kept = min(gains) > 0
        offsets = search.fit(scores, truth, metric).round(6).tolist()
        by_label = dict(zip(names, offsets, strict=True))
        facts["offsets"] = {"metric": metric, "gains": gains, "kept": kept, "fitted": by_label}
        found = Decision(found.temperature, by_label if kept else {})
    if settings.precision is not None:
        _, sure, right = problem.told_labels(logits, labels, found)
        least = fit_threshold(sure, right, settings.precision, settings.confidence)
        facts["precision"] = {
            "wished": settings.precision,
            "confidence": settings.confidence,
            "threshold": least,
        }
        thresholds = {} if least is None else dict.fromkeys(names, least)
        found = Decision(found.temperature, found.offsets, thresholds)
    return found, facts


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


#: Of exactly one of several labels.
AMONG_LABELS = OffsetSearch(("accuracy", "macro_f1", "balanced_accuracy"), fit_offsets, judge)


def fit_own_offsets(scores: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
    """Find what to add to the log-odds of labels of which a row can have several.

    A label is given where its sum is 0 or more: minus an offset is the log-odds of its threshold.
    The search is that of `fit_offsets`.

    Args:
        scores: Log-odds ``[rows, labels]``.
        labels: 0 or 1 ``[rows, labels]``.
        metric: ``micro_f1`` or ``macro_f1``.

    Returns:
        Offsets ``[labels]``, -4 to 4.
    """
    import numpy as np

    tried = np.linspace(-_FARTHEST, _FARTHEST, 2 * (_STEPS // 2) + 1)
    smallest_first = np.argsort(np.abs(tried), kind="stable")

    def counted(rows: np.ndarray) -> np.ndarray:
        """Count scores by the smallest offset that lifts them to 0, smaller ones included."""
        counts = np.bincount(np.searchsorted(tried, -rows), minlength=len(tried) + 1)
        until: np.ndarray = counts[:-1].cumsum()
        return until[smallest_first]

    # By label and offset.
    columns, there = list(zip(scores.T, labels.T, strict=True)), labels.sum(axis=0)
    given = np.array([counted(column) for column, _ in columns])
    hits = np.array([counted(column[truth == 1]) for column, truth in columns])
    which, places = np.zeros(len(there), dtype=int), np.arange(len(there))
    for _ in range(_ROUNDS):
        before = which.copy()
        for place in places:
            now = [np.tile(each[places, which], (len(tried), 1)) for each in (hits, given)]
            now[0][:, place], now[1][:, place] = hits[place], given[place]
            # Of equally good ones the first is taken, which is the smallest.
            which[place] = averaged_f1(now[0], now[1], there, metric).argmax()
        if (which == before).all():
            break
    found: np.ndarray = tried[smallest_first][which]
    return found


def judge_own(scores: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """Return a metric of the labels whose scores ``[rows, labels]`` are 0 or more."""
    given = (scores >= 0).astype(int)
    hits = (given * labels).sum(axis=0)
    return float(averaged_f1(hits, given.sum(axis=0), labels.sum(axis=0), metric))


def averaged_f1(hits: np.ndarray, given: np.ndarray, there: np.ndarray, metric: str) -> np.ndarray:
    """Return an average of F1 ``[...]`` from counts by label ``[..., labels]``."""
    import numpy as np

    from recipes.problems.metrics import counted_metrics

    if metric == "macro_f1":
        return counted_metrics(hits, given, np.broadcast_to(there, given.shape))["macro_f1"]
    found: np.ndarray = 2 * hits.sum(axis=-1) / np.maximum(1, (given + there).sum(axis=-1))
    return found


#: Of any number of several labels.
OWN = OffsetSearch(("micro_f1", "macro_f1"), fit_own_offsets, judge_own)


def offsets_gain(
    scores: np.ndarray, labels: np.ndarray, metric: str, search: OffsetSearch = AMONG_LABELS
) -> list[float]:
    """Return what offsets gain on rows that they were not fitted on.

    Each repeat parts the rows into folds, by label, and judges all rows with offsets of the other
    folds at once.

    Args:
        scores: As of the search's ``fit``, as are the labels and the metric.
        labels: Of each row.
        metric: What offsets are for.
        search: How they are found.

    Returns:
        The metric with offsets less that without, for each repeat.
    """
    import numpy as np

    plain, gains = search.judge(scores, labels, metric), []
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    for repeat in range(_REPEATS):
        order = np.random.default_rng(repeat).permutation(len(labels))
        order = order[np.argsort(kinds[order], kind="stable")]
        moved = scores.copy()
        for fold in range(_FOLDS):
            held = order[fold::_FOLDS]
            rest = np.setdiff1d(order, held)
            moved[held] += search.fit(scores[rest], labels[rest], metric)
        gains.append(search.judge(moved, labels, metric) - plain)
    return gains


def fit_threshold(
    sure: np.ndarray, right: np.ndarray, precision: float, confidence: float | None
) -> float | None:
    """Find the probability from which on answers are as precise as wished.

    Of all such probabilities the lowest is taken: it leaves the fewest texts without an answer.

    Args:
        sure: Probability of each label that is given, ``[labels given]``.
        right: Whether it is right, ``[labels given]``.
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
    """Return ``coverage``, the share of labels that reach a threshold, and their ``precision``.

    The precision is left out where none does.

    Args:
        sure: As of `fit_threshold`, as is ``right``.
        right: Whether a label is right.
        least: The thresholds, ``[labels given]`` or one for all.
    """
    if not len(sure):
        return {"coverage": 0.0}
    given = sure >= least
    found = {"coverage": float(given.mean())}
    return found | ({"precision": float(right[given].mean())} if given.any() else {})
