"""What is wrong with a file before any of its rows is looked at, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recipes.look.findings import Finding, Tally
from recipes.look.gathering import Gathered
from recipes.look.reading import Troubles
from recipes.recipe import DataSettings
from recipes.tasks.tables import beside, quoted
from recipes.tasks.wording import counted

_REFUSES = "A run refuses the file."


def broken_file(path: Path, troubles: Troubles) -> Iterator[Finding]:
    """Tell what a run would refuse a file for."""
    if "encoding" in troubles.found:
        yield _encoding(path, troubles, troubles.found["encoding"])
    ways = {
        "nul": (
            "with NUL bytes: the file is damaged or not a text file.",
            f"Take them out: tr -d '\\000' < {quoted(path)} > {beside(path)}",
        ),
        "quotes": (
            "not well quoted",
            "A field that starts with a quote is quoted as a whole, and a quote in it is written "
            'twice: "He said ""no""."',
        ),
        "width": (
            "with more or fewer fields than the header names",
            "Put a text that holds a separator or a line break in quotes.",
        ),
        "json": (
            "without a JSON object",
            'Each line is one object, like {"text": "Nice!", "label": "good"}.',
        ),
    }
    for kind, (words, way) in ways.items():
        if kind in troubles.found:
            tally = troubles.found[kind]
            unit = "line" if kind == "nul" else "row"
            yield Finding(
                kind,
                "error",
                f"{counted(tally.count, unit)} {words}"
                + ("" if words.endswith(".") else "; passed over here."),
                tally.where,
                _REFUSES,
                way,
                tally.examples,
            )


def _encoding(path: Path, troubles: Troubles, tally: Tally) -> Finding:
    if troubles.encoding:
        return Finding(
            "encoding",
            "error",
            f"{path.name} is {troubles.encoding}, not UTF-8.",
            "",
            _REFUSES,
            f"Convert it: iconv -f {troubles.encoding.lower()} -t utf8 {quoted(path)} > "
            f"{beside(path)}",
        )
    if path.suffix.lower() == ".parquet":
        what, way = "", "Write the file anew with strings in UTF-8."
    else:
        what = f"; the first is byte 0x{troubles.byte:02x} at offset {troubles.offset:,}"
        way = (
            "If the file is Western European (Windows-1252 or Latin-1), convert it: "
            f"iconv -f cp1252 -t utf8 {quoted(path)} > {beside(path)}"
        )
    rows = "row" if path.suffix.lower() == ".parquet" else "line"
    return Finding(
        "encoding",
        "error",
        f"{counted(tally.count, rows)} of {path.name} with bytes that are not UTF-8{what}. They "
        "were left out here.",
        tally.where,
        _REFUSES,
        way,
        tally.examples,
    )


def unusable_rows(gathered: Gathered, settings: DataSettings) -> Iterator[Finding]:
    """Tell of rows without a text or a label, and of texts that are none."""
    dropped = settings.invalid_rows == "drop"
    for problem, tally in gathered.unusable.items():
        them = "it" if tally.count == 1 else "them"
        yield Finding(
            "unusable",
            "warning" if dropped and gathered.usable else "error",
            f"{counted(tally.count, 'row')} {problem}.",
            tally.where,
            f"A run leaves {them} out." if dropped else "A run refuses the data.",
            f"Mend {them}"
            + ("." if dropped else f", or leave {them} out with data.invalid_rows=drop.")
            + (
                " data.max_characters lets longer texts in, though a model reads only a beginning."
                if "characters" in problem
                else ""
            ),
        )
