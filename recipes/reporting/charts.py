"""Charts of the report: numbers in, inline SVG out. What they say is written elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.problems.metrics import BINS
from recipes.problems.resampling import share_interval
from recipes.reporting.drawing import (
    SMALL,
    SPLITS,
    WHOLE,
    WIDTH,
    canvas,
    chart,
    frame,
    label_beside,
    legend,
    role,
    shade,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Epochs and values.
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Spot:
    """One artefact in `tradeoff`.

    Attributes:
        name: Of the artefact.
        text: Its label.
        latency: Milliseconds.
        accuracy: A fraction.
        shipped: Whether it is the one that leaves.
    """

    name: str
    text: str
    latency: float
    accuracy: float
    shipped: bool


@chart
def tradeoff(spots: Sequence[Spot], accuracy: str = "test accuracy, %") -> Figure:
    """Accuracy against latency on a logarithmic axis: up and left is better."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = canvas(WHOLE, 380)
    axes = frame(figure, 52, 16, 20, 40)
    lowest, highest = (f(100 * spot.accuracy for spot in spots) for f in (min, max))
    room = max(0.12 * (highest - lowest), 0.5)
    axes.set_xscale("log")
    axes.set_xlim(min(s.latency for s in spots) / 1.5, max(s.latency for s in spots) * 2.2)
    axes.set_ylim(max(0, lowest - room), min(100 + room / 3, highest + room))
    steps = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("milliseconds a text, median, batch 1 (logarithmic)")
    axes.set_ylabel(accuracy)
    axes.text(0.006, 0.97, "↖ better", transform=axes.transAxes, va="top", color=shade("muted"))
    # The shipped one is labelled first and drawn last.
    first = sorted(spots, key=lambda spot: not spot.shipped)
    for spot in reversed(first):
        axes.plot(
            spot.latency,
            100 * spot.accuracy,
            "o",
            ms=11 if spot.shipped else 8,
            color=shade(role(spot.name)),
            markeredgecolor=shade("ink" if spot.shipped else role(spot.name)),
            markeredgewidth=1.6,
        )
    places = [(spot.latency, 100 * spot.accuracy) for spot in first]
    label_beside(axes, places, [spot.text for spot in first])
    return figure


@chart
def validation(
    curves: Mapping[str, Sequence[Curve]], kept: Mapping[str, Sequence[int]], metric: str
) -> Figure:
    """The validation metric by epoch, a line a training; the epochs that were kept are filled.

    Args:
        curves: Epoch and value, a fraction, by training and phase; most have one phase.
        kept: Position of the kept epoch in the curve of each phase.
        metric: Name of the metric.
    """
    from matplotlib.ticker import MaxNLocator

    figure = canvas(WIDTH, 330)
    axes = frame(figure, 52, 34, 14, 40)
    for name, phases in curves.items():
        color = shade(role(name))
        for phase, (curve, best) in enumerate(zip(phases, kept[name], strict=True)):
            epochs, values = [e for e, _ in curve], [100 * v for _, v in curve]
            label = None if phase else name
            axes.plot(epochs, values, color=color, lw=1.8, label=label, zorder=3)
            axes.plot(epochs, values, "o", ms=6, mfc=shade("paper"), mec=color, mew=1.6, zorder=4)
            axes.plot(epochs[best], values[best], "o", ms=8, color=color, zorder=5)
            if phase:
                axes.axvline(epochs[0] - 0.5, color=shade("muted"), lw=1, ls=(0, (2, 3)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch (filled: kept)")
    axes.set_ylabel(f"validation {metric}, %")
    axes.margins(x=0.06, y=0.1)
    legend(axes, len(curves))
    return figure


@chart
def losses(curves: Mapping[str, Curve]) -> Figure:
    """The training loss by epoch, each training on its own scale.

    Args:
        curves: Epoch and loss by training.
    """
    from matplotlib.ticker import MaxNLocator

    figure = canvas(WIDTH, 330)
    width = WIDTH / len(curves)
    for place, (name, curve) in enumerate(curves.items()):
        axes = frame(figure, 40 + place * width, 34, WIDTH - (place + 1) * width + 8, 40)
        color = shade(role(name))
        axes.plot([e for e, _ in curve], [v for _, v in curve], color=color, lw=1.6)
        axes.set_title(name, loc="left", fontsize=SMALL, color=color, pad=8)
        axes.set_ylim(0, 1.06 * max(value for _, value in curve))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("epoch")
    return figure


@chart
def calibration(
    parts: Mapping[str, Sequence[tuple[float, float, int]]], titles: Mapping[str, str]
) -> Figure:
    """How often answers hold by the probability that they come with; below, how many there are.

    The line through a point is its 95% interval: few rows make it long.

    Args:
        parts: Mean confidence, accuracy and rows of each bin, by model.
        titles: The legend's text by model.
    """
    figure = canvas(WIDTH, 440)
    axes, below = frame(figure, 52, 34, 14, 140), frame(figure, 52, 326, 14, 40)
    axes.plot([0, 100], [0, 100], color=shade("muted"), lw=1, ls=(0, (4, 3)))
    wide = 100 / BINS
    for place, (name, bins) in enumerate(parts.items()):
        sure, right = [100 * s for s, _, _ in bins], [100 * r for _, r, _ in bins]
        color = shade(role(name))
        shares = [count / sum(count for _, _, count in bins) for _, _, count in bins]
        ends = [share_interval(share, count) for _, share, count in bins]
        low, high = [100 * low for low, _ in ends], [100 * high for _, high in ends]
        axes.vlines(sure, low, high, color=color, lw=1.2, alpha=0.4)
        axes.plot(sure, right, color=color, lw=1.2, alpha=0.6)
        sizes = [25 + 200 * share**0.5 for share in shares]
        axes.scatter(sure, right, sizes, color=color, lw=0, label=titles[name], zorder=3)
        starts = [wide * min(math.floor(s / wide), BINS - 1) for s in sure]
        places = [start + wide * (place + 0.5) / len(parts) for start in starts]
        below.bar(places, [100 * share for share in shares], 0.9 * wide / len(parts), color=color)
    start = math.floor(10 * min(sure for bins in parts.values() for sure, _, _ in bins))
    axes.set(xlim=(10 * min(start, 8), 101), ylim=(-3, 103))
    below.set(xlim=axes.get_xlim(), ylim=(0, 100), yticks=(0, 50, 100))
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("right, %")
    below.set_ylabel("rows, %")
    below.set_xlabel("the model's own probability for its answer, %")
    legend(axes, len(parts), markerscale=0.7)
    return figure


@chart
def lengths(tokens: Mapping[str, Sequence[int]], limit: int) -> Figure:
    """Share of rows by length, a line a split, with the length at which texts are cut.

    Args:
        tokens: Length of each row, by split.
        limit: Where texts are cut.
    """
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    figure = canvas(WIDTH, 330)
    axes = frame(figure, 52, 34, 14, 40)
    longest = max(max(values) for values in tokens.values())
    width = math.ceil(longest / 40)
    edges = np.arange(0, longest + 2 * width, width)
    highest = 0.0
    for name, values in tokens.items():
        shares = 100 * np.histogram(values, edges)[0] / len(values)
        highest = max(highest, float(shares.max()))
        axes.stairs(shares, edges, color=shade(SPLITS[name]), lw=1.5, label=name)
    near = limit <= 1.4 * longest
    axes.set(xlim=(0, 1.06 * max(longest, limit if near else 0)), ylim=(0, 1.15 * highest))
    if near:
        axes.axvline(limit, color=shade("wrong"), lw=1.2, ls=(0, (4, 3)))
    axes.text(
        limit / axes.get_xlim()[1] - 0.015 if near else 1,
        0.97,
        f"cut at {limit}" if near else f"cut at {limit}, off the chart →",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=SMALL,
        color=shade("wrong"),
    )
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("tokens" if width == 1 else f"tokens, in steps of {width}")
    axes.set_ylabel("rows of the split, %")
    legend(axes, len(tokens))
    return figure


@chart
def numbers(truth: Sequence[float], given: Sequence[float], name: str) -> Figure:
    """Draw given numbers against true ones; on the line they are equal.

    Args:
        truth: What the test rows say.
        given: What the model says.
        name: What the number is.
    """
    figure = canvas(WIDTH, 380)
    axes = frame(figure, 52, 16, 20, 40)
    low, high = min(*truth, *given), max(*truth, *given)
    room = 0.04 * (high - low) or 1.0
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
    axes.plot([low, high], [low, high], color=shade("line"), lw=1.2, zorder=1)
    color = shade("student")
    axes.plot(truth, given, "o", ms=3, mew=0, alpha=0.35, color=color, zorder=2)
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel(f"{name}, given")
    return figure
