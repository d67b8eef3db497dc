"""How far a difference between two models may be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from recipes.problems import Problem

RESAMPLES = 10_000


@dataclass(frozen=True)
class Gain:
    """What one model has over another of a metric, fractions.

    Attributes:
        mean: What was measured, the mean over rows and seeds.
        low: Lower end of its 95% interval.
        high: Upper end.
        rows: Test rows.
        seeds: Trainings of each model.
        draws: How often rows and seeds were drawn for the interval.
    """

    mean: float
    low: float
    high: float
    rows: int
    seeds: int
    draws: int = RESAMPLES


def gain_by_headline(
    problem: Problem,
    one: Sequence[np.ndarray],
    other: Sequence[np.ndarray],
    labels: Sequence[Any],
) -> Gain:
    """Return what one model gains over another of the headline metric, on the same rows.

    Rows and seeds are drawn as by `paired_gain`, which it is where the metric is the share of rows
    with the right answer.

    Args:
        problem: Has the metric, and makes answers of logits.
        one: Logits ``[rows, outputs]`` of the first model, one array for each seed.
        other: Those of the second, likewise.
        labels: What the rows say.
    """
    import numpy as np

    truth, seeds = np.asarray(labels), len(one)
    if problem.exclusive and problem.headline == "accuracy":
        right = [
            np.stack([problem.answers(own) == truth for own in model]) for model in (one, other)
        ]
        return paired_gain(*right)
    scores = [problem.metrics(own, list(truth))[problem.headline] for own in (*one, *other)]
    drawn = problem.resampled([*one, *other], list(truth))[problem.headline]
    differences = (drawn[:seeds] - drawn[seeds:]).T
    draws = len(differences)
    # Other numbers than those that have drawn the rows: seeds are drawn independently of them.
    chance = np.random.default_rng(1)
    drawn_seeds = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    low, high = np.quantile((differences * drawn_seeds).sum(axis=1) / seeds, (0.025, 0.975))
    mean = (sum(scores[:seeds]) - sum(scores[seeds:])) / seeds
    return Gain(mean, float(low), float(high), len(truth), seeds, draws)


def paired_gain(one: np.ndarray, other: np.ndarray) -> Gain:
    """Return what one model gains over another of the share of right answers on the same rows.

    A paired bootstrap: both models are judged on the rows and seeds that are drawn. Rows and seeds
    are drawn independently of each other, since every seed answers every row (Owen, 2007, Annals
    of Applied Statistics 1, 386; Owen and Eckles, 2012, arXiv:1106.2125). With one seed the
    interval is over rows alone; with a few it understates what seeds do, as their deviation in a
    sample is too small on average. The numbers drawn are the same at every call.

    Args:
        one: Whether the first model is right, ``[seeds, rows]``.
        other: Whether the second is, likewise.
    """
    import numpy as np

    seeds, rows = one.shape
    difference = one.astype(int) - other.astype(int)
    # Rows on which all seeds differ alike can be drawn together: few kinds stand for many rows.
    kinds, counts = np.unique(difference, axis=1, return_counts=True)
    chance = np.random.default_rng(0)
    drawn_rows = chance.multinomial(rows, counts / rows, size=RESAMPLES)
    drawn_seeds = chance.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    means = ((drawn_rows @ kinds.T) * drawn_seeds).sum(axis=1) / (rows * seeds)
    low, high = np.quantile(means, (0.025, 0.975))
    return Gain(float(difference.mean()), float(low), float(high), rows, seeds)
