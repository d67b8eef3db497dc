"""Charts of the report with a row for every label, of which there may be many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recipes.reporting.drawing import (
    SIZE,
    SMALL,
    SPLITS,
    WHOLE,
    WIDTH,
    canvas,
    chart,
    frame,
    legend,
    role,
    shade,
)
from recipes.reporting.units import breadth, narrow

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Room for a label's name, in units of the font's size.
_NAME = 16.0


def is_wide(labels: int) -> bool:
    """Tell whether a table of so many labels needs the page's whole width."""
    return labels > 12


@chart
def confusion(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Count test rows by true and given label, shaded by share of the true label's rows.

    Args:
        counts: Rows, ``[true, given]``.
        labels: Names in the order of the ids.
    """
    number = len(labels)
    size = SIZE if number <= 30 else 8.5
    names = [narrow(label, _NAME) for label in labels]
    rows = [f"{n} ({c:,})" for n, c in zip(names, counts.sum(axis=1), strict=True)]
    widest = size * max(map(breadth, names))
    left = 34 + size * max(map(breadth, rows))
    cell = ((WHOLE if is_wide(number) else WIDTH) - left - 8) / number
    cell = min(64.0, max(17.0, cell))
    upright = widest > cell - 6
    top = 36 + (widest if upright else size)
    figure = canvas(left + cell * number + 8, top + cell * number + 8)
    axes = frame(figure, left, top, 8, 8)
    axes.set(xlim=(0, number), ylim=(number, 0))
    places = [place + 0.5 for place in range(number)]
    names_along(axes, "x", places, names, size, upright)
    names_along(axes, "y", places, rows, size)
    axes.tick_params(top=False, labeltop=True, labelbottom=False, bottom=False, length=0)
    style: dict[str, Any] = {"fontsize": SMALL, "color": shade("muted")}
    style |= {"textcoords": "offset pixels", "annotation_clip": False}
    middle, edge = ("axes fraction", "figure fraction"), ("figure fraction", "axes fraction")
    axes.annotate(
        "given by the model", (0.5, 1), (0, -4), xycoords=middle, ha="center", va="top", **style
    )
    axes.annotate(
        "true label (test rows)",
        (0, 0.5),
        (10, 0),
        xycoords=edge,
        rotation=90,
        rotation_mode="anchor",
        ha="center",
        va="center",
        **style,
    )
    axes.grid(False)
    _cells(axes, counts, cell, size)
    return figure


def _cells(axes: Axes, counts: np.ndarray, cell: float, size: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches, colors = [], []
    for true, given in zip(*counts.nonzero(), strict=True):
        share = counts[true, given] / counts[true].sum()
        patches.append(Rectangle((given + 0.02, true + 0.02), 0.96, 0.96))
        # The root lifts the few mistakes among many rows into sight.
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


@chart
def classes(counts: Mapping[str, Sequence[int]], labels: Sequence[str]) -> Figure:
    """Share of each label by split; the numbers of rows stand at the right.

    Args:
        counts: Rows by label, by split: train first.
        labels: Names, from top to bottom.
    """
    numbers = zip(*counts.values(), strict=True)
    texts = [" / ".join(f"{count:,}" for count in row) for row in numbers]
    figure, axes = _rows(labels, texts, "rows", "share of the split, %")
    height = range(len(labels))
    # Side by side on the bar: at one height they would hide each other in a stratified split.
    shifts = {"validation": -0.16, "test": 0.16}
    room = axes.get_window_extent().height / len(labels)
    for name, values in counts.items():
        shares = [100 * value / max(1, sum(values)) for value in values]
        color = shade(SPLITS[name])
        if name in shifts:
            places = [place + shifts[name] for place in height]
            axes.plot(shares, places, "|", ms=0.32 * room, mew=2.4, color=color, label=name)
        else:
            axes.barh(height, shares, 0.64, color=color, alpha=0.35, label=name)
    axes.set_xlim(0, None)
    handles, _ = axes.get_legend_handles_labels()
    legend(axes, len(counts), handles=[handles[-1], *handles[:-1]])
    return figure


@chart
def class_scores(scores: Mapping[str, Sequence[float]], labels: Sequence[str]) -> Figure:
    """F1 of each label by model, joined by a line where the models differ.

    Args:
        scores: Fractions by label, by model; the last model's stand at the right.
        labels: Names, from top to bottom.
    """
    last = list(scores)[-1]
    texts = [f"{100 * score:.1f}" for score in scores[last]]
    figure, axes = _rows(labels, texts, last, "F1 on test, %")
    for place, found in enumerate(zip(*scores.values(), strict=True)):
        axes.plot([100 * min(found), 100 * max(found)], [place] * 2, color=shade("line"), lw=3)
    for name, values in scores.items():
        color = shade(role(name))
        # The file made from the student mostly lies within the student's ring.
        hollow = name == "student"
        axes.plot(
            [100 * value for value in values],
            range(len(labels)),
            "o",
            ms=10 if hollow else 6,
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


@chart
def class_gains(
    recalls: Mapping[str, Sequence[float]], texts: Sequence[str], labels: Sequence[str]
) -> Figure:
    """Recall of each label by student, joined by a line.

    Args:
        recalls: Fractions by label, by student.
        texts: Gain and rows of each label, for the right side.
        labels: Names, from top to bottom.
    """
    figure, axes = _rows(labels, texts, "gain (rows)", "recall on test, %")
    for place, found in enumerate(zip(*recalls.values(), strict=True)):
        axes.plot([100 * min(found), 100 * max(found)], [place] * 2, color=shade("line"), lw=3)
    for name, values in reversed(list(recalls.items())):
        axes.plot(
            [100 * value for value in values],
            range(len(labels)),
            "o",
            ms=7,
            color=shade(role(name)),
            label=name,
            clip_on=False,
            zorder=3,
        )
    lowest = min(min(values) for values in recalls.values())
    axes.set_xlim(max(0, 10 * math.floor(10 * lowest - 0.2)), 101)
    legend(axes, len(recalls))
    return figure


def _rows(
    labels: Sequence[str], texts: Sequence[str], heading: str, title: str
) -> tuple[Figure, Axes]:
    """Return axes with one row a label, the first on top, and texts under a heading at the right.

    Args:
        labels: Names of the rows.
        texts: One a row.
        heading: What the texts are.
        title: Of the horizontal axis.
    """
    names = [narrow(label, _NAME) for label in labels]
    left, right = (14 + SMALL * max(map(breadth, column)) for column in (names, texts))
    figure = canvas(WIDTH, 34 + 40 + max(22 * len(labels), min(256, 56 * len(labels))))
    axes = frame(figure, left, 34, right, 40)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    names_along(axes, "y", range(len(labels)), names, SMALL)
    axes.grid(False, axis="y")
    axes.set_xlabel(title)
    style: dict[str, Any] = {
        "xycoords": ("figure fraction", "data"),
        "textcoords": "offset points",
        "ha": "right",
        "fontsize": SMALL,
        "color": shade("muted"),
    }
    for place, text in enumerate(texts):
        axes.annotate(text, (1, place), xytext=(-4, 0), va="center_baseline", **style)
    axes.annotate(heading, (1, -0.5), xytext=(-4, 8), **style)
    return figure, axes


def names_along(
    axes: Axes,
    which: str,
    places: Sequence[float],
    names: Sequence[str],
    size: float,
    upright: bool = False,
) -> None:
    """Put names along an axis, turned by a quarter where they are upright."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    options: dict[str, Any] = {"fontsize": size, "color": shade("ink")}
    if upright:
        options |= {"rotation": 90, "rotation_mode": "anchor", "ha": "left", "va": "center"}
    axis.set_ticks(list(places), labels=list(names), **options)
