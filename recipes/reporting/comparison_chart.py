"""The picture of a comparison: accuracy, what learns, and speed, a line a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from typing import TYPE_CHECKING

from recipes.reporting.drawing import (
    SMALL,
    SPLITS,
    canvas,
    frame,
    legend,
    picture,
    shade,
)
from recipes.reporting.units import breadth, narrow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recipes.reporting.comparison import Comparison

#: Pixels: a cell's line, the space above and below all lines, a panel and the gap beside it.
_LINE, _TOP, _BOTTOM, _PANEL, _GAP = 34, 40, 48, 300, 30
#: Figure to its name in the legend and its color.
_ACCURACIES = {
    "validation_accuracy": ("validation", SPLITS["validation"]),
    "test_accuracy": ("test", SPLITS["test"]),
    "average_accuracy": ("test, average of the phases", "alone"),
}


@picture
def comparison_chart(comparison: Comparison) -> Figure:
    """Accuracy with its deviation over the seeds, share of weights that learn, tokens a second."""
    labels = [narrow(result.label, 26) for result in comparison.results]
    left = 24 + max(breadth(label) for label in labels) * SMALL
    speeds = [result.mean("tokens_per_second") for result in comparison.results]
    panels: list[Callable[[Axes, Comparison], None]] = [_accuracies, _shares]
    if any(speeds):
        panels.append(_speeds)
    step = _PANEL + _GAP
    width = left + step * len(panels)
    figure = canvas(width, _TOP + _BOTTOM + _LINE * len(labels))
    for place, draw in enumerate(panels):
        start = left + place * step
        axes = frame(figure, start, _TOP, width - start - _PANEL, _BOTTOM)
        axes.set(ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)))
        axes.set_yticklabels([] if place else labels, color=shade("ink"))
        axes.grid(visible=False, axis="y")
        draw(axes, comparison)
    return figure


def _accuracies(axes: Axes, comparison: Comparison) -> None:
    """Draw means as points and deviations as lines; the series lie below each other."""
    shown = [n for n in _ACCURACIES if any(r.mean(n) is not None for r in comparison.results)]
    for series, name in enumerate(shown):
        text, color = _ACCURACIES[name]
        shift = 0.2 * (series - (len(shown) - 1) / 2)
        places, means, deviations = [], [], []
        for place, result in enumerate(comparison.results):
            if (mean := result.mean(name)) is not None:
                places.append(place + shift)
                means.append(100 * mean)
                deviations.append(100 * (result.deviation(name) or 0))
        axes.errorbar(
            means, places, xerr=deviations, fmt="o", ms=6, capsize=3, lw=1.4,
            color=shade(color), label=text,
        )  # fmt: skip
    axes.set_xlabel("accuracy, %; line: standard deviation over seeds")
    axes.margins(x=0.08)
    axes.set_xlim(right=min(101, axes.get_xlim()[1]))
    if shown:
        legend(axes, len(shown))


def _shares(axes: Axes, comparison: Comparison) -> None:
    """Draw the share of weights that learn on a logarithmic axis, where bars would mislead."""
    from matplotlib.ticker import FixedLocator, NullLocator

    shares = _percentages(comparison)
    known = [share for share in shares if share]
    low, high = min(known, default=1) / 2, max(known, default=100) * 5
    digits = (1,) if high > 200 * low else (1, 2, 5)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.plot(
        [nan if share is None else share for share in shares],
        range(len(shares)),
        "o",
        ms=8,
        color=shade("teacher"),
    )
    _write_beside(axes, shares, lambda value: f"{value:.2g}%" if value < 10 else f"{value:.0f}%")
    axes.xaxis.set_major_locator(FixedLocator([d * 10.0**p for p in range(-7, 3) for d in digits]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("weights that learn, % (logarithmic)")


def _percentages(comparison: Comparison) -> list[float | None]:
    shares = [result.mean("trainable_share") for result in comparison.results]
    return [None if share is None else 100 * share for share in shares]


def _speeds(axes: Axes, comparison: Comparison) -> None:
    speeds = [result.mean("tokens_per_second") for result in comparison.results]
    axes.barh(range(len(speeds)), [s or 0 for s in speeds], height=0.5, color=shade("student"))
    axes.set_xlim(0, 1.3 * max(speed or 0 for speed in speeds))
    _write_beside(axes, speeds, lambda value: f"{value:,.0f}")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("training tokens a second")


def _write_beside(
    axes: Axes, values: Sequence[float | None], write: Callable[[float], str]
) -> None:
    for place, value in enumerate(values):
        if value is not None:
            axes.annotate(
                write(value), (value, place), xytext=(9, 0), textcoords="offset points",
                va="center_baseline", fontsize=SMALL,
            )  # fmt: skip
