"""How far a difference of accuracy between two models may be chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Gain:
    """Accuracy that one model has over another, fractions.

    Attributes:
        mean: What was measured, the mean over rows and seeds.
        low: Lower end of its 95% interval.
        high: Upper end.
        rows: Test rows.
        seeds: Trainings of each model.
    """

    mean: float
    low: float
    high: float
    rows: int
    seeds: int


def paired_gain(one: np.ndarray, other: np.ndarray) -> Gain:
    """Return what one model gains over another on the same rows.

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
