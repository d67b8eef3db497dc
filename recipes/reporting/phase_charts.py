"""Charts of the report for learning phase after phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.reporting.drawing import SIZE, SMALL, WHOLE, WIDTH, canvas, chart, frame, role, shade
from recipes.reporting.label_charts import is_wide, names_along
from recipes.reporting.units import breadth, narrow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["is_wide", "phase_lines", "phase_matrix"]

#: Room for a phase's name, in units of the font's size.
_NAME = 14.0
#: Colors and marks of the phases, in turn; joint training has a color of its own.
_COLORS = ("teacher", "student", "alone", "wrong", "baseline")
_MARKS = "osD^vPX"
#: Pixels from one text to the next below it.
_LINE = 14.0


@chart
def phase_matrix(
    matrix: Sequence[Sequence[float]],
    names: Sequence[str],
    early: Sequence[Sequence[bool]],
    joint: Sequence[float],
) -> Figure:
    """Accuracy on the test rows of each phase after each phase, shaded; below, joint training's.

    Args:
        matrix: Fractions, ``[after phase, test rows of phase]``.
        names: Of the phases.
        early: Whether something can be right of a phase that is still to come.
        joint: Fractions, by phase.
    """
    number = len(names)
    size = SIZE if number <= 30 else 8.5
    names = [narrow(name, _NAME) for name in names]
    widest = size * max(map(breadth, names))
    left = 34 + max(widest, size * breadth("joint"))
    room = (WHOLE if is_wide(number) else WIDTH) - left - 8
    cell = min(84.0, max(17.0, room / number))
    tall = min(cell, 52.0)
    upright = widest > cell - 6
    top = 36 + (widest if upright else size)
    rows = number + 1.3
    figure = canvas(left + cell * number + 8, top + tall * rows + 8)
    axes = frame(figure, left, top, 8, 8)
    axes.set(xlim=(0, number), ylim=(rows, 0))
    middles = [place + 0.5 for place in range(number)]
    names_along(axes, "x", middles, names, size, upright)
    names_along(axes, "y", [*middles, rows - 0.5], [*names, "joint"], size)
    axes.tick_params(top=False, labeltop=True, labelbottom=False, bottom=False, length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    _titles(axes, number / (2 * rows))
    size = min(size, cell / 3.4)
    for now, (row, known) in enumerate(zip(matrix, early, strict=True)):
        for phase, value in enumerate(row):
            if phase <= now:
                _cell(axes, phase, now, value, size, "teacher")
            else:
                _future(axes, phase, now, value if known[phase] else None, size)
    for phase, value in enumerate(joint):
        _cell(axes, phase, rows - 1, value, size, role("joint"))
    return figure


def _titles(axes: Axes, middle: float) -> None:
    style: dict[str, Any] = {"fontsize": SMALL, "color": shade("muted"), "ha": "center"}
    style |= {"textcoords": "offset pixels", "annotation_clip": False}
    above = ("axes fraction", "figure fraction")
    axes.annotate("test rows of phase", (0.5, 1), (0, -4), xycoords=above, va="top", **style)
    axes.annotate(
        "after phase",
        (0, 1 - middle),
        (10, 0),
        xycoords=above[::-1],
        rotation=90,
        rotation_mode="anchor",
        va="center",
        **style,
    )


def _cell(axes: Axes, x: float, y: float, value: float, size: float, color: str) -> None:
    from matplotlib.patches import Rectangle

    styles: list[dict[str, Any]] = [
        {"fc": shade(color), "ec": "none", "alpha": round(value, 3)},
        {"fc": "none", "ec": shade("line"), "lw": 0.8},
    ]
    for style in styles:
        axes.add_patch(Rectangle((x + 0.02, y + 0.02), 0.96, 0.96, **style))
    _write(axes, x, y, value, size, "paper" if value > 0.6 else "ink")


def _future(axes: Axes, x: float, y: float, value: float | None, size: float) -> None:
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"fc": "none", "ec": shade("muted"), "lw": 0.7, "ls": (0, (3, 3))}
    axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, **style))
    _write(axes, x, y, value, size, "muted")


def _write(axes: Axes, x: float, y: float, value: float | None, size: float, color: str) -> None:
    text = "\u2013" if value is None else f"{100 * value:.1f}" if size > 9 else f"{100 * value:.0f}"
    axes.text(
        x + 0.5, y + 0.5, text, ha="center", va="center_baseline", fontsize=size, color=shade(color)
    )


@chart
def phase_lines(matrix: Sequence[Sequence[float]], names: Sequence[str], joint: float) -> Figure:
    """Accuracy on each phase from when it was learnt on, and on average over the phases so far.

    Args:
        matrix: Fractions, ``[after phase, test rows of phase]``.
        names: Of the phases.
        joint: Average accuracy of joint training, drawn as a dashed bound.
    """
    from matplotlib.ticker import MaxNLocator

    number = len(names)
    texts = ["joint, average", "average", *(narrow(name, _NAME) for name in names)]
    right = 30 + SMALL * max(map(breadth, texts))
    height = max(330.0, 80 + _LINE * len(texts))
    figure = canvas(WHOLE if is_wide(number) else WIDTH, height)
    axes = frame(figure, 52, 16, right, 40)
    axes.set(xlim=(0.85, number + 0.15), ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("after phase")
    axes.set_ylabel("test accuracy, %")
    axes.axhline(100 * joint, color=shade(role("joint")), lw=1.4, ls=(0, (4, 3)), zorder=2)
    so_far = [100 * sum(row[: now + 1]) / (now + 1) for now, row in enumerate(matrix)]
    axes.plot(range(1, number + 1), so_far, color=shade("ink"), lw=2.6, zorder=5)
    ends, colors = [100 * joint, so_far[-1]], [role("joint"), "ink"]
    for phase in range(number):
        color = _COLORS[phase % len(_COLORS)]
        values = [100 * row[phase] for row in matrix[phase:]]
        axes.plot(
            range(phase + 1, number + 1),
            values,
            f"{_MARKS[phase // len(_COLORS) % len(_MARKS)]}-",
            color=shade(color),
            lw=1.6,
            ms=6,
            zorder=4,
            clip_on=False,
        )
        ends.append(values[-1])
        colors.append(color)
    _label_ends(axes, ends, texts, colors)
    return figure


def _label_ends(
    axes: Axes, ends: Sequence[float], texts: Sequence[str], colors: Sequence[str]
) -> None:
    """Write the name of each line at its right end, one below the other where they would meet."""
    bounds = axes.get_window_extent()
    x = axes.get_xlim()[1]
    pixels = [float(axes.transData.transform((x, end))[1]) for end in ends]
    for at, place, text, color in zip(
        pixels, _spread(pixels, bounds.y0, bounds.y1), texts, colors, strict=True
    ):
        axes.annotate(
            text,
            (bounds.x1 + 2, at),
            xycoords="figure pixels",
            xytext=(14, place - at),
            textcoords="offset pixels",
            va="center_baseline",
            fontsize=SMALL,
            color=shade(color),
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": shade("muted"), "lw": 0.6},
        )


def _spread(places: Sequence[float], low: float, high: float) -> list[float]:
    """Return heights near the given ones, in their order and a line apart, if there is room."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved, last = list(places), low - _LINE
    for number in order:
        last = moved[number] = max(moved[number], last + _LINE)
    last = high + _LINE
    for number in reversed(order):
        last = moved[number] = min(moved[number], last - _LINE)
    return moved
