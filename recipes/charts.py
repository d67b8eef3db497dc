"""The charts of the report: numbers in, inline SVG out. What they say is written elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipes.drawing import SIZE, SMALL, canvas, chart, frame, label_beside, legend, shade
from recipes.units import breadth, narrow

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of a chart that has another one beside it.
_WIDTH = 530
#: Room for a label's name, in units of the font's size.
_NAME = 16.0


@dataclass(frozen=True)
class Spot:
    """One artefact in `tradeoff`.

    Attributes:
        text: Its label.
        latency: Milliseconds.
        accuracy: A fraction.
        color: Name of its color.
        shipped: Whether it is the one that leaves.
    """

    text: str
    latency: float
    accuracy: float
    color: str
    shipped: bool


@chart
def tradeoff(spots: Sequence[Spot]) -> Figure:
    """Accuracy against latency on a logarithmic axis: up and left is better."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = canvas(1080, 380)
    axes = frame(figure, 52, 16, 20, 44)
    lowest, highest = (f(100 * spot.accuracy for spot in spots) for f in (min, max))
    margin = max(0.12 * (highest - lowest), 0.5)
    quickest, slowest = (f(spot.latency for spot in spots) for f in (min, max))
    axes.set_xscale("log")
    axes.set_xlim(quickest / 1.5, slowest * 2.2)
    axes.set_ylim(max(0, lowest - margin), min(100 + margin / 3, highest + margin))
    steps = [d * 10.0**p for p in range(-4, 6) for d in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("milliseconds a text, median, batch 1 (logarithmic)")
    axes.set_ylabel("test accuracy, %")
    for spot in spots:
        axes.plot(
            spot.latency,
            100 * spot.accuracy,
            "o",
            ms=11 if spot.shipped else 8,
            color=shade(spot.color),
            markeredgecolor=shade("ink") if spot.shipped else "none",
            markeredgewidth=1.6,
        )
    first = sorted(spots, key=lambda spot: not spot.shipped)
    label_beside(
        axes,
        [(spot.latency, 100 * spot.accuracy) for spot in first],
        [spot.text for spot in first],
    )
    return figure


@chart
def validation(
    curves: Mapping[str, Sequence[tuple[float, float]]], kept: Mapping[str, int], metric: str
) -> Figure:
    """The validation metric by epoch, a line a training; the epoch that was kept is filled.

    Args:
        curves: Epoch and value, a fraction, by training.
        kept: Position of the kept epoch in the curve.
        metric: Name of the metric.
    """
    from matplotlib.ticker import MaxNLocator

    figure = canvas(_WIDTH, 330)
    axes = frame(figure, 52, 34, 14, 44)
    for name, curve in curves.items():
        epochs, values = [e for e, _ in curve], [100 * v for _, v in curve]
        color = shade(role(name))
        axes.plot(epochs, values, color=color, lw=1.8, label=name, zorder=3)
        axes.plot(epochs, values, "o", ms=6, mfc=shade("paper"), mec=color, mew=1.6, zorder=4)
        best = kept[name]
        axes.plot(epochs[best], values[best], "o", ms=8, color=color, zorder=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch (filled: kept)")
    axes.set_ylabel(f"validation {metric}, %")
    axes.margins(x=0.06, y=0.1)
    legend(axes, len(curves))
    return figure


@chart
def losses(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """The training loss by epoch, each training on its own scale.

    Args:
        curves: Epoch and loss by training.
    """
    from matplotlib.ticker import MaxNLocator

    figure = canvas(_WIDTH, 330)
    width = _WIDTH / len(curves)
    for place, (name, curve) in enumerate(curves.items()):
        axes = frame(figure, 40 + place * width, 34, _WIDTH - (place + 1) * width + 8, 44)
        axes.plot([e for e, _ in curve], [v for _, v in curve], color=shade(role(name)), lw=1.6)
        axes.set_title(name, loc="left", fontsize=SMALL, color=shade(role(name)), pad=8)
        axes.set_ylim(0, 1.06 * max(value for _, value in curve))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("epoch")
    return figure


@chart
def confusion(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Count test rows by true and given label, shaded by share of the true label's rows.

    Args:
        counts: Rows, ``[true, given]``.
        labels: Names in the order of the ids.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    number = len(labels)
    cell = min(56.0, max(17.0, 400 / number))
    size = min(SIZE, 0.5 * cell)
    names = [narrow(label, _NAME) for label in labels]
    rows = [f"{n} ({c:,})" for n, c in zip(names, counts.sum(axis=1), strict=True)]
    left, top = 34 + size * max(map(breadth, rows)), 34 + size * max(map(breadth, names))
    figure = canvas(max(_WIDTH, left + cell * number + 14), top + cell * number + 14)
    right = 72 * figure.get_size_inches()[0] - left - cell * number
    axes = frame(figure, left, top, right, 14)
    axes.set(xlim=(0, number), ylim=(number, 0))
    _names(axes, "x", [place + 0.5 for place in range(number)], names, size)
    _names(axes, "y", [place + 0.5 for place in range(number)], rows, size)
    axes.tick_params(top=False, labeltop=True, labelbottom=False, bottom=False, length=0)
    axes.set_xlabel("given by the model")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true label (test rows)")
    axes.grid(False)
    patches, colors = [], []
    for true, given in zip(*counts.nonzero(), strict=True):
        share = counts[true, given] / counts[true].sum()
        patches.append(Rectangle((given + 0.02, true + 0.02), 0.96, 0.96))
        colors.append((shade("student" if true == given else "wrong"), round(share**0.5, 3)))
        text = f"{counts[true, given]}"
        axes.text(
            given + 0.5,
            true + 0.5,
            text,
            ha="center",
            va="center_baseline",
            fontsize=min(size, cell / (0.7 * len(text) + 0.6)),
            color=shade("paper" if share > 0.3 else "ink"),
        )
    axes.add_collection(PatchCollection(patches, facecolors=colors, edgecolors="none"))
    return figure


@chart
def calibration(
    parts: Mapping[str, Sequence[tuple[float, float, int]]], titles: Mapping[str, str]
) -> Figure:
    """How often answers hold by the probability that they come with; below, how many there are.

    Args:
        parts: Mean confidence, accuracy and rows of each bin, by model.
        titles: The legend's text by model.
    """
    figure = canvas(_WIDTH, 440)
    lowest = min(0.9, min(sure for bins in parts.values() for sure, _, _ in bins))
    start = math.floor(10 * lowest) / 10
    axes, below = frame(figure, 56, 34, 14, 140), frame(figure, 56, 322, 14, 44)
    axes.plot([0, 100], [0, 100], color=shade("muted"), lw=1, ls=(0, (4, 3)))
    for place, (name, bins) in enumerate(parts.items()):
        sure, right = [100 * s for s, _, _ in bins], [100 * r for _, r, _ in bins]
        total = sum(count for _, _, count in bins)
        color = shade(role(name))
        axes.plot(sure, right, "o-", ms=6, color=color, lw=1.8, label=titles[name], zorder=3)
        places = [10 * min(math.floor(s / 10), 9) + 2.5 + 5 * place for s in sure]
        shares = [100 * count / total for _, _, count in bins]
        below.bar(places, shares, 4.4, color=color)
    low = min(right for bins in parts.values() for _, right, _ in bins)
    axes.set(xlim=(100 * start, 101), ylim=(max(-2, min(100 * start, 100 * low) - 4), 102))
    below.set(xlim=(100 * start, 101), ylim=(0, 100), yticks=(0, 50, 100))
    axes.tick_params(labelbottom=False)
    axes.set_ylabel("right, %")
    below.set_ylabel("rows, %")
    below.set_xlabel("the model's own probability for its answer, %")
    legend(axes, len(parts))
    return figure


@chart
def lengths(tokens: Mapping[str, Sequence[int]], limit: int) -> Figure:
    """Share of rows by length, a line a split, with the length at which texts are cut."""
    import numpy as np

    figure = canvas(_WIDTH, 330)
    axes = frame(figure, 52, 34, 14, 44)
    longest = max(max(values) for values in tokens.values())
    width = max(1, math.ceil(longest / 40))
    edges = np.arange(0, longest + 2 * width, width)
    for name, values in tokens.items():
        shares = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(shares, edges, color=shade(_SPLITS[name]), lw=1.6, label=name)
    near = limit <= 1.4 * longest
    axes.set(xlim=(0, 1.06 * max(longest, limit if near else 0)), ylim=(0, None))
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
    axes.set_xlabel("tokens" if width == 1 else f"tokens, in steps of {width}")
    axes.set_ylabel("rows of the split, %")
    legend(axes, len(tokens))
    return figure


@chart
def classes(counts: Mapping[str, Sequence[int]], labels: Sequence[str]) -> Figure:
    """Share of each label by split; the numbers of rows stand at the right.

    Args:
        counts: Rows by label, by split: train first.
        labels: Names, from top to bottom.
    """
    texts = [" / ".join(f"{n:,}" for n in numbers) for numbers in zip(*counts.values(), strict=True)]
    figure, axes = _rows(labels, texts, "share of the split, %")
    height = list(range(len(labels)))
    for name, numbers in counts.items():
        shares = [100 * n / max(1, sum(numbers)) for n in numbers]
        if name == "train":
            axes.barh(height, shares, 0.62, color=shade("line"), label=name)
        else:
            axes.plot(shares, height, "|", ms=13, mew=2.2, color=shade(_SPLITS[name]), label=name)
    axes.set_xlim(0, None)
    legend(axes, len(counts))
    return figure


@chart
def class_scores(scores: Mapping[str, Sequence[float]], labels: Sequence[str]) -> Figure:
    """F1 of each label by model, joined by a line where the models differ.

    Args:
        scores: Fractions by label, by model.
        labels: Names with their numbers of rows, from top to bottom.
    """
    last = list(scores)[-1]
    figure, axes = _rows(labels, [f"{100 * score:.1f}" for score in scores[last]], "F1 on test, %")
    for place, values in enumerate(zip(*scores.values(), strict=True)):
        axes.plot([100 * min(values), 100 * max(values)], [place] * 2, color=shade("line"), lw=3)
    for name, values in scores.items():
        color = shade(role(name))
        hollow = name == "student"
        axes.plot(
            [100 * value for value in values],
            range(len(labels)),
            "o",
            ms=9 if hollow else 6,
            mfc="none" if hollow else color,
            mec=color,
            mew=1.5 if hollow else 0,
            label=name,
            clip_on=False,
            zorder=3,
        )
    lowest = min(min(values) for values in scores.values())
    axes.set_xlim(max(0, 10 * math.floor(10 * lowest - 0.2)), 101)
    legend(axes, len(scores))
    return figure


_SPLITS = {"train": "baseline", "validation": "extra", "test": "ink"}


def role(name: str) -> str:
    """Return the name of an artefact's color."""
    if name in ("teacher", "merged"):
        return "teacher"
    if name == "student-alone":
        return "alone"
    return "student" if name.startswith("student") or name == "bundle" else "baseline"


def _rows(labels: Sequence[str], texts: Sequence[str], title: str) -> tuple[Figure, Axes]:
    """Return axes with one row a label, the first on top, and a text right of each."""
    names = [narrow(label, _NAME) for label in labels]
    left, right = (14 + SMALL * max(map(breadth, column)) for column in (names, texts))
    figure = canvas(_WIDTH, 34 + 44 + max(120, 22 * len(labels)))
    axes = frame(figure, left, 34, right, 44)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    _names(axes, "y", range(len(labels)), names, SMALL)
    axes.grid(False, axis="y")
    axes.set_xlabel(title)
    for place, text in enumerate(texts):
        axes.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=SMALL,
            color=shade("muted"),
        )
    return figure, axes


def _names(axes: Axes, which: str, places: Sequence[float], names: Sequence[str], size: float) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    options: dict[str, Any] = {"fontsize": size, "color": shade("ink"), "parse_math": False}
    if which == "x":
        options |= {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center"}
    axis.set_ticks(list(places), labels=list(names), **options)
