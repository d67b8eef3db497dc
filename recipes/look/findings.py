"""What a look at the data has found, in words and as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recipes.tasks.wording import counted, listed

#: ``error``: a run refuses these data. ``warning``: it does not, and its figures suffer or deceive.
#: ``note``: worth knowing.
Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
#: Rows that a finding names; the others are counted.
NAMED = 5
#: Rows that a finding lists in a JSON file.
LISTED = 1000


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: What kind of thing, in one word that does not change: ``duplicates``.
        level: How bad it is.
        what: What was found.
        where: Rows as the person counts them; empty where it is about all of them.
        does: What a run does about it.
        change: How to have that changed: by which key, or by which command.
        examples: Texts or values that show it.
        rows: Name of the origin and number of every such row, where a person has to read them; at
            most `LISTED`.
    """

    code: str
    level: Level
    what: str
    where: str = ""
    does: str = ""
    change: str = ""
    examples: Sequence[str] = ()
    rows: Sequence[tuple[str, int]] = ()


@dataclass
class Look:
    """All that a look at the data tells.

    Attributes:
        source: Which data.
        facts: What was counted, by title, in the order in which it is told.
        findings: The worst first.
        left_out: What was not looked for, and why.
        seconds: How long the look took.
    """

    source: str
    facts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, findings: Iterable[Finding]) -> None:
        """Put findings to the others, each level in the order in which they came."""
        self.findings = sorted([*self.findings, *findings], key=lambda f: LEVELS.index(f.level))

    def count(self, level: Level) -> int:
        """Return how many findings there are of a level."""
        return sum(finding.level == level for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data, for a JSON file."""
        return asdict(self)


def restored(plain: Mapping[str, Any]) -> Look:
    """Return what `Look.plain` has made plain data of."""
    return Look(**{**plain, "findings": [Finding(**found) for found in plain["findings"]]})


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
        name: What messages call it, usually the file.
        split: ``train``, ``validation`` or ``test``.
        unit: What its rows are counted in: ``line`` or ``row``.
    """

    name: str
    split: str
    unit: str


@dataclass
class Tally:
    """How often something was found, and where first."""

    count: int = 0
    first: list[tuple[Origin, int]] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    def add(self, origin: Origin, number: int, example: str | None = None) -> None:
        """Count it once more."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append((origin, number))
            if example is not None:
                self.examples.append(example)

    @property
    def where(self) -> str:
        """Name the first rows and count the others."""
        return places(self.first, self.count)


def places(rows: Sequence[tuple[Origin, int]], total: int | None = None) -> str:
    """Name rows as the person counts them: ``lines 3 and 9 of a.csv, line 7 of b.csv``.

    Args:
        rows: Origin and number of each.
        total: How many there are, if more than `rows`.
    """
    named: dict[Origin, list[str]] = {}
    for origin, number in rows[:NAMED]:
        named.setdefault(origin, []).append(str(number))
    parts = [
        f"{origin.unit}{'s' * (len(numbers) > 1)} {listed(numbers, NAMED)} of {origin.name}"
        for origin, numbers in named.items()
    ]
    more = (len(rows) if total is None else total) - min(len(rows), NAMED)
    return ", ".join(parts) + (f" and {counted(more, 'other')}" if more > 0 else "")
