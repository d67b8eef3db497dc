"""A metric over the number of rows that were learnt from: what more labels would bring."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipes.ledger import Ledger
from recipes.reporting.drawing import canvas, frame, label_beside, legend, picture, shade
from recipes.reporting.summary import named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recipes.reporting.comparison import Result

#: Row of the ledger to the beginning of its figure's name, its color and how its line is drawn.
_LINES = {
    "teacher": ("test", "teacher", "-"),
    "student": ("student_test", "student", "-"),
    "student-alone": ("alone_test", "alone", "-"),
    "frozen-logreg": ("frozen_test", "baseline", "--"),
    "tfidf-logreg": ("tfidf_test", "baseline", ":"),
}
_BASELINES = ("frozen-logreg", "tfidf-logreg")
#: Percent by which equal baselines may differ, computed anew.
_SAME = 0.01
#: What makes cells of one axis differ in their rows alone.
_SIZES = re.compile(r"(?:^|\s)(?:data\.)?(?:fraction|per_class)=\S+")


@dataclass(frozen=True)
class Line:
    """One line of the picture.

    Attributes:
        title: What it is called in the legend.
        color: From `recipes.reporting.drawing.COLORS`.
        style: As matplotlib names it.
        points: Rows learnt from, mean of the metric and its deviation over the seeds, in percent.
    """

    title: str
    color: str
    style: str
    points: Sequence[tuple[float, float, float]]


def curve_figures(ledger: Ledger, rows: int | None, metric: str | None = None) -> dict[str, float]:
    """Return what a run adds to the curve, by name: its rows and what its baselines reached.

    Args:
        ledger: Of the run.
        rows: How many rows were learnt from; None if an earlier version has not written it down.
        metric: What is told beside the headline metric; None for nothing.
    """
    found = {
        f"{_LINES[row.name][0]}_{told}": row.metrics[told]
        for row in (ledger[name] for name in _BASELINES if name in ledger)
        for told in filter(None, (row.headline, metric))
    }
    return {**found, "training_rows": rows} if rows is not None else {}


def is_curve(results: Sequence[Result]) -> bool:
    """Tell whether the cells have learnt from different numbers of rows."""
    known = {rows for result in results if (rows := result.mean("training_rows")) is not None}
    return len(known) > 1


def curve_cells(
    results: Sequence[Result], titles: Sequence[str], metric: str = "accuracy"
) -> list[dict[str, str]]:
    """Return the cells of the curve's table by column, row by row.

    Args:
        results: The comparison's.
        titles: What the first column says, one a result.
        metric: What is told, a fraction.
    """
    return [
        {"cell": title, "rows": _rows(result), **_scores(result, metric)}
        for result, title in zip(results, titles, strict=True)
    ]


def _rows(result: Result) -> str:
    mean = result.mean("training_rows")
    return "" if mean is None else f"{mean:,.0f}"


def _scores(result: Result, metric: str) -> dict[str, str]:
    """Write a metric, and how far the teacher is above the better of both baselines."""
    cells = {name: result.spread(f"{begin}_{metric}") for name, (begin, _, _) in _LINES.items()}
    teacher = result.mean(f"test_{metric}")
    means = [result.mean(f"{_LINES[name][0]}_{metric}") for name in _BASELINES]
    rivals = [mean for mean in means if mean is not None]
    above = teacher - max(rivals) if teacher is not None and rivals else None
    return {**cells, "teacher above": "" if above is None else f"{100 * above:+.2f}"}


@picture
def learning_curve(results: Sequence[Result], metric: str = "accuracy") -> Figure:
    """A test metric of teacher, students and baselines over the rows they have learnt from.

    The metric is a fraction. Points are means, bars deviations over the seeds; the axis of the rows
    is logarithmic.
    """
    figure = canvas(760, 470)
    axes = frame(figure, 60, 56, 120, 52)
    ends = []
    for line in _lines(results, metric):
        places, means, deviations = zip(*line.points, strict=True)
        axes.errorbar(
            places, means, yerr=deviations, fmt="o", ls=line.style, ms=5, capsize=3, lw=1.6,
            color=shade(line.color), label=line.title,
        )  # fmt: skip
        ends.append(((places[-1], means[-1]), f"{means[-1]:.1f}"))
    _scale(axes, results)
    axes.set_ylabel(f"test {named(metric)}, %; bar: deviation over seeds")
    label_beside(axes, *map(list, zip(*ends, strict=True)))
    legend(axes, 3)
    return figure


def _lines(results: Sequence[Result], metric: str) -> Iterator[Line]:
    """Yield the lines: the models' for each set of cells that differ in nothing but their rows."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_SIZES.sub("", result.label).strip(), []).append(result)
    # Baselines depend on the rows alone, or on the backbone, too: those that differ have own lines.
    rivals = {
        name: [_points(members, f"{_LINES[name][0]}_{metric}") for members in groups.values()]
        for name in _BASELINES
    }
    one = {name: _alike(found) for name, found in rivals.items()}
    for place, (title, members) in enumerate(groups.items()):
        for name, (begin, color, style) in _LINES.items():
            if one.get(name) and place:
                continue
            if points := _points(members, f"{begin}_{metric}"):
                whole = name if one.get(name) or not title else f"{name}, {title}"
                yield Line(whole, color, style, points)


def _alike(lines: Sequence[Sequence[tuple[float, float, float]]]) -> bool:
    """Tell whether lines have the same mean wherever they have the same rows."""
    means: dict[float, float] = {}
    return all(
        abs(means.setdefault(rows, mean) - mean) < _SAME for line in lines for rows, mean, _ in line
    )


def _points(results: Sequence[Result], figure: str) -> list[tuple[float, float, float]]:
    points = []
    for result in results:
        rows, mean = result.mean("training_rows"), result.mean(figure)
        if rows is not None and mean is not None:
            points.append((rows, 100 * mean, 100 * (result.deviation(figure) or 0)))
    return sorted(points)


def _scale(axes: Axes, results: Sequence[Result]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    rows = sorted({r for result in results if (r := result.mean("training_rows")) is not None})
    axes.set_xscale("log")
    axes.margins(x=0.06, y=0.1)
    axes.xaxis.set_major_locator(FixedLocator(rows))
    axes.xaxis.set_minor_locator(NullLocator())
    write: Callable[[float, object], str] = lambda value, _: f"{value:,.0f}"  # noqa: E731
    axes.xaxis.set_major_formatter(write)
    axes.set_xlabel("rows learnt from (logarithmic)")
