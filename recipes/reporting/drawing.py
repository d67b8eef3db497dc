"""One style for all charts: matplotlib figures as inline SVG that takes the page's colors.

Charts are drawn in the light colors; in the SVG every color becomes a variable of the page, which
has a light and a dark value, and text stays text, set in the page's own font. One unit of a figure
is one pixel of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from recipes.reporting.units import breadth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Name to light and dark value; no two light values are equal.
COLORS = {
    "paper": ("#ffffff", "#16191e"),
    "ink": ("#1c2128", "#e4e8ee"),
    "muted": ("#626b77", "#98a2b0"),
    "line": ("#dce0e6", "#343b45"),
    "teacher": ("#2f66c4", "#7aaaf7"),
    "student": ("#0d8577", "#46c4b2"),
    "alone": ("#c2660c", "#efa257"),
    "baseline": ("#808a97", "#7f8996"),
    "wrong": ("#c23a3a", "#f07c77"),
    "extra": ("#8a4fb8", "#c493ee"),
}
#: Width of a chart that has another one beside it, and of one that has the page for itself.
WIDTH, WHOLE = 530, 1080
#: Sizes of text.
SIZE, SMALL = 11.0, 10.0
#: Names of the splits' colors.
SPLITS = {"train": "baseline", "validation": "extra", "test": "ink"}
_FONT = "DejaVu Sans"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "potstill",
    "text.parse_math": False,
    "font.family": [_FONT],
    "font.size": SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLORS["line"][0],
    "axes.facecolor": "none",
    "axes.labelcolor": COLORS["muted"][0],
    "axes.labelsize": SMALL,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLORS["line"][0],
    "grid.linewidth": 0.7,
    "text.color": COLORS["ink"][0],
    "xtick.color": COLORS["line"][0],
    "ytick.color": COLORS["line"][0],
    "xtick.labelcolor": COLORS["muted"][0],
    "ytick.labelcolor": COLORS["muted"][0],
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "figure.dpi": 72,
    "lines.solid_capstyle": "round",
}

Arguments = ParamSpec("Arguments")
Box = tuple[float, float, float, float]


def shade(name: str) -> str:
    """Return the color to draw with."""
    return COLORS[name][0]


def role(artefact: str) -> str:
    """Return the name of an artefact's color, the same in every chart."""
    if artefact in ("teacher", "merged"):
        return "teacher"
    if artefact == "joint":
        return "extra"
    if artefact == "student-alone":
        return "alone"
    return "student" if artefact.startswith("student") or artefact == "bundle" else "baseline"


def chart(draw: Callable[Arguments, Figure]) -> Callable[Arguments, str]:
    """Turn a function that draws a figure into one that returns inline SVG.

    The function's name becomes the beginning of every id in the SVG, since all charts share a page.
    """

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        with _style():
            buffer = io.StringIO()
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            draw(*args, **kwargs).savefig(buffer, format="svg", transparent=True, metadata=nothing)
        return _inline(buffer.getvalue(), draw.__name__)

    return drawn


def picture(draw: Callable[Arguments, Figure]) -> Callable[Arguments, bytes]:
    """Turn a function that draws a figure into one that returns a PNG, two pixels a unit."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> bytes:
        with _style():
            buffer = io.BytesIO()
            draw(*args, **kwargs).savefig(buffer, format="png", dpi=144, facecolor=shade("paper"))
        return buffer.getvalue()

    return drawn


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # What matplotlib's own font lacks is set by the reader's browser.
        warnings.simplefilter("ignore", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure; sizes in pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72))


def frame(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes that leave these margins, in pixels."""
    width, height = 72 * figure.get_size_inches()
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )


def legend(axes: Axes, columns: int, **options: Any) -> None:
    """Put the legend in one line above the axes, from their left edge on."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        borderaxespad=0.3,
        borderpad=0.2,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.4,
        fontsize=SMALL,
        **options,
    )


def label_beside(axes: Axes, spots: Sequence[tuple[float, float]], texts: Sequence[str]) -> None:
    """Write a text beside each point so that no text covers another or a point.

    Args:
        axes: With its limits and scales set.
        spots: Points in data units.
        texts: One a point; the first ones get the best places.
    """
    pixels = [tuple(axes.transData.transform(spot)) for spot in spots]
    bounds = axes.get_window_extent()
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in pixels]
    for (x, y), text in zip(pixels, texts, strict=True):
        wide, high = breadth(text) * SMALL, SMALL * 1.25
        places = [
            (dx, dy, (x + dx - (wide if dx < 0 else wide / 2 if dx == 0 else 0), y + dy - high / 2))
            for reach in (1, 2, 3.2, 4.6, 6)
            for dx, dy in _around(reach)
        ]
        boxes = [(left, low, left + wide, low + high) for _, _, (left, low) in places]
        free = [
            number
            for number, box in enumerate(boxes)
            if box[0] >= bounds.x0 - 40
            and box[2] <= bounds.x1 + 4
            and box[1] >= bounds.y0 + 2
            and box[3] <= bounds.y1 + 8
            and not any(_cover(box, other) for other in taken)
        ]
        best = free[0] if free else 0
        dx, dy, _ = places[best]
        taken.append(boxes[best])
        far = max(abs(dx), abs(dy)) > 16
        axes.annotate(
            text,
            (x, y),
            xycoords="figure pixels",
            xytext=(dx, dy),
            textcoords="offset pixels",
            ha="right" if dx < 0 else "center" if dx == 0 else "left",
            va="center_baseline",
            fontsize=SMALL,
            arrowprops={"arrowstyle": "-", "color": shade("muted"), "lw": 0.6} if far else None,
        )


def _around(reach: float) -> list[tuple[float, float]]:
    side, up = 9 * reach, 13 * reach
    diagonal = [(side, up), (-side, up), (side, -up), (-side, -up)]
    return [(side, 0), (-side, 0), (0, up), (0, -up), *diagonal]


def _cover(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inline(svg: str, name: str) -> str:
    """Cut an SVG file down to its element and give it the page's colors, fonts and ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg, count=2)
    # Tags only: what stands between them is text, a label's name perhaps.
    svg = re.sub(r"<[^>]+>", lambda tag: _page_tag(tag.group(), name), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-labelledby="{name}" ', 1)


def _page_tag(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'(href="|url\()#', rf"\1#{name}-", tag)
    tag = tag.replace(f"'{_FONT}'", "var(--font)")
    for color, (light, _) in COLORS.items():
        tag = tag.replace(light, f"var(--{color})")
    return tag
