"""What the look at the data has found, for the report."""

from __future__ import annotations

import json
from typing import Any

from recipes.look.findings import LEVELS, Finding, Look, restored
from recipes.reporting.units import one_line
from recipes.tasks.wording import counted, listed
from recipes.workspace import Workspace

#: What its first stage leaves; runs of before have none.
_FOUND = ("baseline", "data.json")
#: Colors of the levels, by the classes of the template.
_CLASSES = {"error": "bad", "warning": "bad", "note": ""}


def data_part(work: Workspace) -> dict[str, Any] | None:
    """Return what the template shows of the data; None if they were not looked at."""
    path = work.folder.joinpath(*_FOUND)
    if not path.is_file():
        return None
    look = restored(json.loads(path.read_text(encoding="utf-8")))
    return {
        "takeaway": _takeaway(look),
        "facts": {title: one_line(fact) for title, fact in look.facts.items()},
        "findings": [_line(finding) for finding in look.findings],
        "left_out": {check: one_line(reason) for check, reason in look.left_out.items()},
        "command": "python -m recipes.data recipe.yaml",
    }


def _takeaway(look: Look) -> str:
    counts = [counted(n, level) for level in LEVELS if (n := look.count(level))]
    found = (
        f"Found in the rows that were learned and measured: {listed(counts) or 'nothing wrong'}."
    )
    return f"{found} What was removed before is told under “Data and weights”."


def _line(finding: Finding) -> dict[str, Any]:
    return {
        "level": finding.level,
        "mark": _CLASSES[finding.level],
        "code": finding.code,
        "what": one_line(finding.what),
        "where": one_line(finding.where),
        "does": one_line(finding.does),
        "change": one_line(finding.change),
        "examples": [one_line(example) for example in finding.examples],
    }
