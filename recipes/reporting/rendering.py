"""Filling the templates, and writing what comes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from recipes.reporting.units import one_line

_TEMPLATES = Path(__file__).parent / "templates"
#: Characters that Markdown or the HTML inside it would read as more than text.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&]|^[#+-]|(?<![^\W_])_|_(?![^\W_])")


def render(template: str, **context: Any) -> str:
    """Fill a template; whatever goes into HTML is escaped.

    Args:
        template: Its file name.
        **context: Its variables; a missing one is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markdown
    return environment.get_template(template).render(**context)


def markdown(text: object) -> str:
    """Write a text so that Markdown shows it as it is, in a table's cell too."""
    return _MARKUP.sub(_as_text, one_line(str(text)))


def _as_text(match: re.Match[str]) -> str:
    entities = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return entities.get(match.group(), f"\\{match.group()}")
