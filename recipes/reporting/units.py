"""How the report and the model card write numbers and foreign text.

A number and its unit are joined by a space at which no line breaks.
"""

from __future__ import annotations

import unicodedata

#: The sign, which is as wide as a plus.
MINUS = "\u2212"


def percent(fraction: float, digits: int = 1) -> str:
    """Write a fraction in percent, such as ``91.2%``."""
    return f"{100 * fraction:.{digits}f}%"


def points(difference: float, digits: int = 1) -> str:
    """Write a difference of fractions in percentage points with its sign, such as ``+0.9 pt``."""
    number = f"{100 * difference:+.{digits}f}"
    return f"{number.replace('-', MINUS) if float(number) else '0'}\u00a0pt"


def apart(difference: float, digits: int = 1) -> str:
    """Write the size of a difference of fractions in percentage points, such as ``0.9 pt``."""
    return f"{100 * abs(difference):.{digits}f}\u00a0pt"


def headed(text: str) -> str:
    """Begin a text with a capital letter, and leave the others as they are."""
    return text[:1].upper() + text[1:]


def milliseconds(value: float) -> str:
    """Write milliseconds to about three digits."""
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}\u00a0ms"


def megabytes(size: float) -> str:
    """Write a size given in bytes; a small one in kilobytes."""
    return f"{size / 1e6:.1f}\u00a0MB" if size >= 1e5 else f"{size / 1e3:.1f}\u00a0kB"


def times(factor: float) -> str:
    """Write a factor, such as ``9.1×``."""
    return f"{factor:.0f}×" if factor >= 20 else f"{factor:.1f}×"


def duration(seconds: float) -> str:
    """Write a time for a person."""
    if seconds < 100:
        return f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes}\u00a0min {rest}\u00a0s"
        if minutes < 60
        else f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"
    )


def one_line(text: str, limit: int | None = None) -> str:
    """Put a text on one line, without control characters, cut to ``limit`` characters."""
    clean = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
    line = " ".join(clean.split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def breadth(text: str) -> float:
    """Estimate how wide a text is set, in units of the font's size."""
    return sum(
        0.0 if unicodedata.combining(c) else 1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6
        for c in text
    )


def narrow(text: str, limit: float) -> str:
    """Cut a text so that it is at most ``limit`` times the font's size wide."""
    line = one_line(text)
    if breadth(line) <= limit:
        return line
    kept = ""
    for character in line:
        if breadth(kept + character) > limit - 1:
            break
        kept += character
    return kept.rstrip() + "…"
