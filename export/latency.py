"""Timing several artefacts in one run, so that their ratios hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

#: Calls of one artefact in a row; the first ones after a change are not counted.
_BLOCK = 10
_WARM = 2


def interleaved(
    calls: Mapping[str, Callable[[int], object]], rows: int, rounds: int = 8
) -> dict[str, dict[str, float]]:
    """Time single calls of several artefacts in turn.

    A machine's speed drifts, so the artefacts take turns in short blocks, and each block starts
    with calls that do not count: they bring back the caches that the artefact before took.

    Args:
        calls: Name to a function that answers row number ``i``.
        rows: How many rows there are to ask for.
        rounds: How many blocks each artefact gets.

    Returns:
        Name to ``p50`` and ``p95``, milliseconds a call.
    """
    import numpy as np

    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            for step in range(-_WARM, _BLOCK):
                row = (turn * _BLOCK + step) % rows
                start = time.perf_counter()
                call(row)
                if step >= 0:
                    taken[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {"p50": float(np.percentile(times, 50)), "p95": float(np.percentile(times, 95))}
        for name, times in taken.items()
    }
