"""The picture of a comparison: a line a cell, a panel for each figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil, nan
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from recipes.problems.metrics import higher_is_better
from recipes.reporting.drawing import (
    SMALL,
    SPLITS,
    canvas,
    frame,
    legend,
    picture,
    shade,
)
from recipes.reporting.summary import named
from recipes.reporting.units import breadth, narrow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recipes.reporting.comparison import Comparison

#: Pixels: a cell's line, the space above and below all lines, a panel and the gap beside it.
_LINE, _TOP, _BOTTOM, _PANEL, _GAP = 34, 40, 48, 300, 30
#: Pixels: from here on, panels go into a further row.
_WIDEST = 1500
#: Beginning of a figure's name to what it is called in the legend and its color.
_SPLITS = {split: (split, SPLITS[split]) for split in ("validation", "test")}
#: What the students are compared in, likewise, in the order in which they are drawn.
_STUDENTS = {
    "test": ("teacher", "teacher"),
    "student_test": ("student", "student"),
    "alone_test": ("alone", "alone"),
}
#: What phases add to the headline metric, by the figure's name.
_PHASES = {"average_accuracy": ("test, average of the phases", "alone")}
_Values = Sequence[float | None]


@picture
def comparison_chart(comparison: Comparison) -> Figure:
    """What the cells came to; a panel for which nothing was measured is left out.

    The headline metric, the one that the recipes choose by and the recall of the rarest label with
    their deviation over the seeds; means of the share of weights that learn, seconds,
    tokens a second, peak memory, and the share of answers that merging keeps. Where students were
    trained, first their headline metric, their gain with its interval, their share of the
    teacher's, their seconds and the tokens that they read.
    """
    labels = [_lines(result.title) for result in comparison.results]
    left = 24 + max(breadth(line) for lines in labels for line in lines) * SMALL
    panels = list(_panels(comparison))
    step = _PANEL + _GAP
    rows = ceil(len(panels) / ((_WIDEST - left) // step))
    across = ceil(len(panels) / rows)
    width, height = left + step * across, _TOP + _BOTTOM + _LINE * len(labels)
    figure = canvas(width, height * rows)
    for place, draw in enumerate(panels):
        row, column = divmod(place, across)
        start = left + column * step
        axes = frame(
            figure,
            start,
            _TOP + row * height,
            width - start - _PANEL,
            _BOTTOM + (rows - 1 - row) * height,
        )
        axes.set(ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)))
        axes.set_yticklabels([] if column else map("\n".join, labels), color=shade("ink"))
        axes.grid(visible=False, axis="y")
        draw(axes)
    return figure


def _lines(title: str) -> list[str]:
    """Cut a cell's title to two lines; what sets cells apart is often at its end."""
    lines = wrap(title, 43, max_lines=2, placeholder=" …", break_on_hyphens=False)
    return [narrow(line, 26) for line in lines]


def _panels(comparison: Comparison) -> Iterator[Callable[[Axes], None]]:
    """Yield what draws each panel, the panels without any value left out."""
    whose, headline = "", comparison.headline
    if comparison.judged == "student":
        yield from _student_panels(comparison)
        whose = " of the teacher"
    shown = _of(headline, _SPLITS) | _PHASES
    title = f"{named(headline)}{whose}, %; line: deviation over seeds"
    yield partial(_scores, comparison, shown, title)
    yield from _other_panels(comparison, whose)
    for name, scale, draw, write, title in (
        ("trainable_share", 100, _shares, _share, "weights that learn, % (logarithmic)"),
        ("seconds", 1, _bars, "{:,.1f}".format, "seconds of fine-tuning"),
        ("tokens_per_second", 1, _bars, "{:,.0f}".format, "training tokens a second"),
        ("peak_memory_bytes", 1e-9, _bars, "{:,.2f}".format, "peak memory, GB"),
        ("merge_agreement", 100, _kept, "{:.2f}%".format, "answers kept by merging, %"),
    ):
        means = [result.mean(name) for result in comparison.results]
        values = [None if mean is None else scale * mean for mean in means]
        if any(value is not None for value in values):
            yield partial(_panel, values, draw, write, title)


def _other_panels(comparison: Comparison, whose: str) -> Iterator[Callable[[Axes], None]]:
    """Yield what draws the metric that the recipes choose by, and the rarest label's recall."""
    if (metric := comparison.metric) is not None:
        scale, unit = (100, ", %") if higher_is_better(metric) else (1, "")
        if comparison.judged == "student":
            title = f"test {named(metric)} of the students{unit}; line: deviation"
            yield partial(_scores, comparison, _of(metric, _STUDENTS), title, scale=scale)
        title = f"{named(metric)}{whose}{unit}; line: deviation"
        yield partial(_scores, comparison, _of(metric, _SPLITS), title, scale=scale)
    if comparison.rarest:
        title = f"recall{whose} of {narrow(comparison.rarest, 16)}, the rarest label, %"
        yield partial(_scores, comparison, {"rarest_recall": _SPLITS["test"]}, title)


def _of(metric: str, series: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Return the figures of a metric, each with what it is called and its color."""
    return {f"{begin}_{metric}": called for begin, called in series.items()}


def _student_panels(comparison: Comparison) -> Iterator[Callable[[Axes], None]]:
    title = f"test {named(comparison.headline)} of the students, %; line: deviation"
    yield partial(_scores, comparison, _of(comparison.headline, _STUDENTS), title)
    yield partial(_gains, comparison)
    if any(result.mean("teacher_share") is not None for result in comparison.results):
        yield partial(_shares_of_teacher, comparison)
    for end, scale, write, title in (
        ("seconds", 1, "{:,.0f}".format, "seconds of both students"),
        ("tokens", 1e-6, "{:,.2f}".format, "million tokens that they read"),
    ):
        if any(result.mean(f"student_{end}") is not None for result in comparison.results):
            yield partial(_both, comparison, end, scale, write, title)


def _panel(
    values: _Values,
    draw: Callable[[Axes, _Values], None],
    write: Callable[[float], str],
    title: str,
    axes: Axes,
) -> None:
    """Draw one figure of all cells and write each value beside its mark."""
    draw(axes, values)
    axes.set_xlabel(title)
    for place, value in enumerate(values):
        if value is not None:
            _write_beside(axes, write(value), value, place)


def _write_beside(axes: Axes, text: str, value: float, place: float, **options: Any) -> None:
    axes.annotate(
        text, (value, place), **{"xytext": (9, 0), "va": "center_baseline", **options},
        textcoords="offset points", fontsize=SMALL,
    )  # fmt: skip


def _gains(comparison: Comparison, axes: Axes) -> None:
    """Draw what the student has over the one without a teacher, with its interval."""
    axes.axvline(0, color=shade("muted"), lw=1)
    for place, result in enumerate(comparison.results):
        if (mean := result.mean("gain")) is None:
            continue
        gain = result.gain
        value, low, high = (
            (100 * mean,) * 3
            if gain is None
            else (100 * gain.mean, 100 * gain.low, 100 * gain.high)
        )
        axes.plot([low, high], [place] * 2, color=shade("student"), lw=1.6)
        axes.plot(value, place, "o", ms=8, color=shade("student"))
        _write_beside(axes, f"{value:+.1f}", value, place, xytext=(0, 9), ha="center")
    axes.margins(x=0.12)
    axes.set_xlabel("gain of student over alone, points; line: 95% interval")


def _shares_of_teacher(comparison: Comparison, axes: Axes) -> None:
    """Draw the student's headline metric as a share of the teacher's, which may exceed it."""
    shares = [result.mean("teacher_share") for result in comparison.results]
    values = [None if share is None else 100 * share for share in shares]
    axes.axvline(100, color=shade("muted"), lw=1)
    title = f"student's share of the teacher's {named(comparison.headline)}, %"
    _panel(values, _points, "{:.1f}%".format, title, axes)
    axes.margins(x=0.25)


def _both(
    comparison: Comparison,
    end: str,
    scale: float,
    write: Callable[[float], str],
    title: str,
    axes: Axes,
) -> None:
    """Draw a bar for each of both students."""
    most = 0.0
    for shift, name in ((-0.2, "student"), (0.2, "alone")):
        for place, result in enumerate(comparison.results):
            if (mean := result.mean(f"{name}_{end}")) is not None:
                axes.barh(place + shift, scale * mean, height=0.36, color=shade(name))
                _write_beside(axes, write(scale * mean), scale * mean, place + shift, xytext=(4, 0))
                most = max(most, scale * mean)
    axes.set_xlim(0, 1.3 * most or 1)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(title)


def _scores(
    comparison: Comparison,
    series: Mapping[str, tuple[str, str]],
    title: str,
    axes: Axes,
    *,
    scale: float = 100,
) -> None:
    """Draw means as points and deviations as lines; the series lie below each other."""
    shown = [n for n in series if any(r.mean(n) is not None for r in comparison.results)]
    for number, name in enumerate(shown):
        text, color = series[name]
        shift = 0.2 * (number - (len(shown) - 1) / 2)
        places, means, deviations = [], [], []
        for place, result in enumerate(comparison.results):
            if (mean := result.mean(name)) is not None:
                places.append(place + shift)
                means.append(scale * mean)
                deviations.append(scale * (result.deviation(name) or 0))
        axes.errorbar(
            means, places, xerr=deviations, fmt="o", ms=6, capsize=3, lw=1.4,
            color=shade(color), label=text,
        )  # fmt: skip
    axes.set_xlabel(title)
    if not shown:
        axes.set_xlim(0, 100)
        return
    axes.margins(x=0.08)
    if scale == 100:
        axes.set_xlim(right=min(101, axes.get_xlim()[1]))
    axes.locator_params(axis="x", nbins=6)
    legend(axes, len(shown))


def _shares(axes: Axes, shares: _Values) -> None:
    """Draw points on a logarithmic axis, where bars would mislead."""
    from matplotlib.ticker import FixedLocator, NullLocator

    known = [share for share in shares if share]
    low, high = min(known) / 2, max(known) * 5
    digits = (1,) if high > 200 * low else (1, 2, 5)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _points(axes, shares)
    ticks = [d * 10.0**p for p in range(-7, 2) for d in digits]
    axes.xaxis.set_major_locator(FixedLocator([*ticks, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _share(value: float) -> str:
    return f"{value:.2g}%" if value < 10 else f"{value:.0f}%"


def _kept(axes: Axes, shares: _Values) -> None:
    """Draw points on an axis that ends near 100 % and begins where the lowest value is."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    low = min(share for share in shares if share is not None)
    span = max(100 - low, 0.5)
    axes.set_xlim(100 - 1.1 * span, 100 + 0.3 * span)
    _points(axes, shares)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(100 - span, 100)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick < 100.01]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _points(axes: Axes, values: _Values) -> None:
    spots = [nan if value is None else value for value in values]
    axes.plot(spots, range(len(spots)), "o", ms=8, color=shade("teacher"))


def _bars(axes: Axes, values: _Values) -> None:
    lengths = [value or 0 for value in values]
    axes.barh(range(len(lengths)), lengths, height=0.5, color=shade("student"))
    axes.set_xlim(0, 1.3 * (max(lengths) or 1))
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
