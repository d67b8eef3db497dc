"""Rows drawn again and again: how far a figure may be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Draws for an interval.
DRAWS = 5_000
#: Counts that are held at once: fewer draws are made of more rows.
_MOST = 20_000_000
_FEWEST = 500


def drawn(answers: np.ndarray, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows with replacement; the numbers drawn are the same at every call.

    Rows that are alike in all that is given of them are drawn together: few kinds stand for many.

    Args:
        answers: What is known of each row, ``[rows, …]``.
        draws: How often as many rows are drawn as there are; less often where they are of very
            many kinds.

    Returns:
        The kinds ``[kinds, …]``, and how often each was drawn ``[draws, kinds]``.
    """
    import numpy as np

    kinds, counts = np.unique(answers, axis=0, return_counts=True)
    draws = min(draws, max(_FEWEST, _MOST // len(kinds)))
    chance = np.random.default_rng(0)
    times = chance.multinomial(len(answers), counts / len(answers), size=draws)
    return kinds, times.astype(np.float64)


def share_interval(share: float, rows: int) -> list[float]:
    """Return the 95% interval of a share of some rows (Wilson, 1927), right for few rows too.

    Args:
        share: The share that was observed, a fraction.
        rows: On how many rows.
    """
    z = 1.96
    center = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (share * (1 - share) / rows + z * z / (4 * rows**2)) ** 0.5
    return [center - half, center + half]


def interval(values: np.ndarray) -> list[float]:
    """Return both ends of the 95% interval of drawn values ``[draws]`` (Efron, 1979)."""
    import numpy as np

    low, high = np.quantile(values, (0.025, 0.975))
    return [float(low), float(high)]
