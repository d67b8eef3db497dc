"""Charts of a search: its trials in, inline SVG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.reporting.drawing import SMALL, WHOLE, WIDTH, canvas, chart, frame, legend, shade
from recipes.reporting.units import breadth, narrow
from recipes.tuning.space import Choices, Dimension
from recipes.tuning.study import Trial, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: State to its color, its mark and whether the mark is filled.
_MARKS = {"complete": ("student", "o", True), "pruned": ("alone", "o", False)}
_PLAIN = ("teacher", "D", True)
#: Charts of one key each beside each other, and the height of each.
_ACROSS, _HIGH = 4, 236


@chart
def history(trials: Sequence[Trial], metric: str) -> Figure:
    """Every trial's figure by its number, and the best so far.

    Args:
        trials: All that have ended.
        metric: Name of the axis.
    """
    from matplotlib.ticker import MaxNLocator

    figure = canvas(WHOLE, 340)
    axes = frame(figure, 62, 34, 20, 40)
    _dots(axes, [(trial, trial.number) for trial in trials])
    numbers: list[int] = []
    bests: list[float] = []
    for trial in trials:
        if trial.state == "complete" and trial.value is not None:
            numbers.append(trial.number)
            bests.append(max([trial.value, *bests[-1:]]))
    axes.step(numbers, bests, where="post", color=shade("ink"), lw=1.4, label="best so far")
    own = next((t.value for t in trials if t.plain and t.value is not None), None)
    if own is not None:
        axes.axhline(own, color=shade("teacher"), lw=1, ls=(0, (4, 3)), zorder=1)
    for trial in trials:
        if trial.state == "failed":
            axes.plot(
                trial.number, 0.02, "x", color=shade("wrong"), transform=axes.get_xaxis_transform()
            )
    axes.set_xlim(-0.6, max(trial.number for trial in trials) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial (× failed)")
    axes.set_ylabel(metric)
    axes.margins(y=0.1)
    legend(axes, 4, markerscale=0.8)
    return figure


@chart
def importance(shares: Mapping[str, float]) -> Figure:
    """How much of the figures' variance each key explains, a bar each."""
    figure = canvas(WIDTH, 60 + 34 * len(shares))
    names = [narrow(key, 26) for key in shares]
    axes = frame(figure, 16 + SMALL * max(map(breadth, names)), 8, 52, 40)
    places = range(len(shares))
    axes.barh(places, [100 * share for share in shares.values()], 0.6, color=shade("student"))
    for place, share in zip(places, shares.values(), strict=True):
        axes.text(100 * share + 1, place, f"{100 * share:.0f}%", va="center", fontsize=SMALL)
    axes.set(xlim=(0, 100), ylim=(len(shares) - 0.5, -0.5), yticks=places)
    axes.set_yticklabels(names, color=shade("ink"))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the variance, %")
    return figure


@chart
def epochs(trials: Sequence[Trial], metric: str) -> Figure:
    """Each trial's figure by epoch; where one was ended, its line has an open end."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(WIDTH, 330)
    axes = frame(figure, 62, 34, 14, 40)
    best = best_of(trials)
    for trial in sorted(trials, key=lambda t: (t is best, t.plain)):
        color, _, filled = _mark(trial)
        if not trial.curve:
            continue
        steps, values = list(trial.curve), list(trial.curve.values())
        strong = trial is best or trial.plain
        axes.plot(
            steps, values, color=shade(color), lw=2 if strong else 1, alpha=1 - 0.5 * (not strong)
        )
        axes.plot(
            steps[-1], values[-1], "o", ms=6, mew=1.4, mec=shade(color),
            mfc=shade(color if filled else "paper"),
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch (open end: pruned)")
    axes.set_ylabel(metric)
    axes.set_xlim(0.8, max(epoch for trial in trials for epoch in trial.curve) + 0.2)
    axes.margins(y=0.1)
    return figure


@chart
def slices(trials: Sequence[Trial], space: Sequence[Dimension], metric: str) -> Figure:
    """The figures against each key by itself.

    Args:
        trials: All that have ended.
        space: The keys.
        metric: Name of the vertical axes.
    """
    across = min(_ACROSS, max(2, len(space)))
    rows = math.ceil(len(space) / across)
    figure = canvas(WHOLE, rows * _HIGH)
    width = (WHOLE - 48) / across
    for place, dimension in enumerate(space):
        row, column = divmod(place, across)
        left = 58 + column * width
        axes = frame(
            figure, left, 14 + row * _HIGH, WHOLE - left - width + 34, 44 + (rows - 1 - row) * _HIGH
        )
        _scale(axes, dimension, width - 34)
        _dots(
            axes,
            [
                (trial, _at(dimension, trial.stored[dimension.key]))
                for trial in trials
                if dimension.key in trial.stored
            ],
        )
        axes.set_xlabel(narrow(dimension.key, (width - 20) / SMALL))
        if column == 0:
            axes.set_ylabel(metric)
        axes.margins(x=0.08, y=0.12)
    return figure


@chart
def parallel(trials: Sequence[Trial], space: Sequence[Dimension], metric: str) -> Figure:
    """Every complete trial as a line through its values to its figure.

    Args:
        trials: Complete ones, with a value for every key.
        space: The keys.
        metric: Name of the last axis.
    """
    figure = canvas(WHOLE, 360)
    axes = frame(figure, 70, 34, 90, 30)
    values = [trial.value or 0.0 for trial in trials]
    low, high = min(values), max(values)
    good = sorted(values, reverse=True)[max(0, len(values) // 4 - 1)]
    best = best_of(trials)
    for trial in sorted(trials, key=lambda t: t.value or 0.0):
        value = trial.value or 0.0
        ends = ((value - low) / (high - low)) if high > low else 0.5
        color, lw = ("student", 3.0) if trial is best else ("baseline", 1.0)
        color, lw = ("teacher", 1.6) if value >= good and trial is not best else (color, lw)
        line = [_share(dimension, trial.stored[dimension.key]) for dimension in space]
        axes.plot(range(len(space) + 1), [*line, ends], color=shade(color), lw=lw, alpha=0.85)
    for place, dimension in enumerate(space):
        axes.axvline(place, color=shade("muted"), lw=1)
        for text in dimension.values if isinstance(dimension, Choices) else dimension.ends:
            at = _share(dimension, dimension.stored(text))
            axes.text(
                place - 0.02, at, narrow(text, 16), ha="right", va="center", fontsize=SMALL,
                bbox={"fc": shade("paper"), "ec": "none", "pad": 1.5, "alpha": 0.8},
            )  # fmt: skip
    axes.axvline(len(space), color=shade("muted"), lw=1)
    for at, value in ((0, low), (1, high)) if high > low else ((0.5, low),):
        axes.text(len(space) + 0.02, at, f"{value:.4f}", va="center", fontsize=SMALL)
    axes.set(xlim=(0, len(space)), ylim=(-0.06, 1.06), yticks=[], xticks=range(len(space) + 1))
    room = (WHOLE - 160) / len(space) / SMALL
    axes.set_xticklabels([*(narrow(d.key, room) for d in space), metric], color=shade("ink"))
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return figure


def _mark(trial: Trial) -> tuple[str, str, bool]:
    if trial.plain and trial.state == "complete":
        return _PLAIN
    return _MARKS.get(trial.state, ("wrong", "x", False))


def _dots(axes: Axes, places: Sequence[tuple[Trial, float]]) -> None:
    """Mark trials that have a figure; each kind once in the legend."""
    known: set[tuple[str, str, bool]] = set()
    for trial, x in places:
        if trial.value is None or trial.state not in _MARKS:
            continue
        mark = color, shape, filled = _mark(trial)
        name = "the recipe as it stands" if mark == _PLAIN else trial.state
        axes.plot(
            x, trial.value, shape, ms=7, mew=1.5, mec=shade(color), zorder=3, alpha=0.9,
            mfc=shade(color if filled else "paper"), ls="none",
            label=None if mark in known else name,
        )  # fmt: skip
        known.add(mark)


def _scale(axes: Axes, dimension: Dimension, width: float) -> None:
    """Set the axis of a key."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if isinstance(dimension, Choices):
        room = width / len(dimension.values) / SMALL
        axes.set_xticks(range(len(dimension.values)))
        axes.set_xticklabels([narrow(text, max(room, 3)) for text in dimension.values])
        axes.set_xlim(-0.5, len(dimension.values) - 0.5)
    elif dimension.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1, 3) if dimension.high < 100 * dimension.low else (1,), numticks=6)
        )
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(dimension.low / 1.3, dimension.high * 1.3)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=dimension.whole))


def _at(dimension: Dimension, stored: Any) -> float:
    """Return where a stored value lies on the axis of its key."""
    if isinstance(dimension, Choices) and not dimension.ordered:
        return dimension.values.index(stored)
    return float(stored)


def _share(dimension: Dimension, stored: Any) -> float:
    """Return where a stored value lies between the ends of its key, from 0 to 1."""
    at = _at(dimension, stored)
    if isinstance(dimension, Choices):
        return at / (len(dimension.values) - 1)
    low, high = dimension.low, dimension.high
    if dimension.log:
        at, low, high = math.log(at), math.log(low), math.log(high)
    return (at - low) / (high - low)
