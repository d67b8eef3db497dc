"""Read a person's own table, every value as it was written, every row under its own number.

A frame from here is indexed by where its rows stand in the file, so that any later message can say
"line 17 of my.csv". The index is named after what it counts: ``line`` (the line in the file, from
1, at which the row starts) for CSV, TSV and JSON lines, ``row`` (from 1) for Parquet.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.rows import delimited
from recipes.errors import RecipeError
from recipes.tasks.wording import listed, shown

if TYPE_CHECKING:
    from pandas import DataFrame

_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_WAYS_OUT = {
    ".json": "Make JSON lines of an array of objects: jq -c '.[]' {file} > {jsonl}",
    ".ndjson": "Rename it: mv {file} {jsonl}",
    ".xls": "Save the sheet as CSV (UTF-8).",
    ".xlsx": "Save the sheet as CSV (UTF-8).",
    ".gz": "Decompress it first: gunzip {file}",
    ".zip": "Decompress it first: unzip {file}",
}
_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def read_table(path: str | Path) -> DataFrame:
    """Read a table from a CSV, TSV, JSON-lines or Parquet file, told apart by suffix.

    A ``.txt`` file is a table with the one column ``text``, a line a row.

    A CSV file whose header has semicolons and no comma is parted by semicolons. Values of CSV and
    TSV files stay text exactly as written (``NA``, ``null`` and ``007`` too);
    only an empty field is missing (None). Blank lines are no rows. The first row holds the column
    names; a nameless column is called ``column N``.

    Args:
        path: The file; ``~`` is expanded.

    Returns:
        One row per example, indexed by the line or row number (see the module's description).
        The columns of all but Parquet files hold plain Python objects.

    Raises:
        RecipeError: The file is missing, unreadable, empty, of an unknown kind, not UTF-8, or
            broken; the message says in which line.
    """
    file = Path(os.path.expanduser(path))  # noqa: PTH111 (Path's own raises for an unknown ~user)
    check_file(file)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        hint = _WAYS_OUT.get(file.suffix.lower(), "Rename it after what it holds.")
        raise RecipeError(
            f"{file} is no table that can be read: its name must end in {', '.join(_READERS)}. "
            + hint.format(file=quoted(file), jsonl=quoted(file.with_suffix(".jsonl")))
        )
    return reader(file)


def check_file(file: Path) -> None:
    """Refuse what is no regular file, and say what lies there instead.

    Raises:
        RecipeError: The file is missing, a folder, or no regular file.
    """
    try:
        if file.is_file():
            return
        if file.is_dir():
            inside = listed(map(shown, _tables_in(file))) or "none"
            raise RecipeError(f"{file} is a folder; name a file. Tables in it: {inside}.")
        if file.exists():
            raise RecipeError(f"{file} is no regular file. Write the table to a file first.")
        folder = file.absolute().parent
        if not folder.is_dir():
            raise RecipeError(f"{file} does not exist, nor does its folder {folder}.")
        tables = _tables_in(folder)
    except OSError as error:
        raise _unreadable(file, error) from error
    stems = {Path(table).stem.lower(): table for table in tables}
    near = difflib.get_close_matches(file.stem.lower(), stems, n=1)
    hint = f"Tables there: {listed(map(shown, tables)) or 'none'}."
    if near:
        hint = f"Did you mean {shown(stems[near[0]])}?"
    raise RecipeError(f"There is no file {shown(file.name, 100)} in {folder}. {hint}")


def _tables_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _READERS)


def _unreadable(file: Path, error: OSError) -> RecipeError:
    return RecipeError(
        f"{file} cannot be read: {error.strerror or error}. Check the file and its permissions."
    )


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error
    if not data.strip().removeprefix(codecs.BOM_UTF8):
        raise RecipeError(f"{file} is empty. Name a file that holds labelled rows.")
    return data


def _text(file: Path) -> str:
    """Decode a file strictly; what is wrong is named by line and byte."""
    data = _bytes(file)
    encoding = foreign_encoding(data)
    if encoding:
        raise RecipeError(
            f"{file} is {encoding}, not UTF-8. Convert it: "
            f"iconv -f {encoding.lower()} -t utf8 {quoted(file)} > {beside(file)}"
        )
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        text = data[start:].decode()
    except UnicodeDecodeError as error:
        at = start + error.start
        raise RecipeError(
            f"{_place(data, at)} of {file} is not UTF-8: byte 0x{data[at]:02x} at offset {at:,}. "
            f"If the file is Western European (Windows-1252 or Latin-1), convert it: "
            f"iconv -f cp1252 -t utf8 {quoted(file)} > {beside(file)}"
        ) from error
    at = data.find(b"\0")
    if at >= 0:
        raise RecipeError(
            f"{_place(data, at)} of {file} holds a NUL byte at offset {at:,}: the file is damaged "
            f"or not a text file. Write it anew, or take the NUL bytes out: "
            f"tr -d '\\000' < {quoted(file)} > {beside(file)}"
        )
    return text


def foreign_encoding(data: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 by the first bytes of a file; None for anything else."""
    for encoding, marks in _ENCODINGS.items():
        if data.startswith(marks):
            return encoding
    # UTF-16 without a mark: in Western text every other byte is zero.
    sample = data[:1000]
    zeros = max(sample[::2].count(0), sample[1::2].count(0))
    if zeros <= len(sample) / 4:
        return None
    return "UTF-16BE" if sample[::2].count(0) == zeros else "UTF-16LE"


def _place(data: bytes, offset: int) -> str:
    return "Line " + str(data.count(b"\n", 0, offset) + 1)


def quoted(file: Path) -> str:
    """Return a path as a word of a shell command."""
    return shlex.quote(str(file))


def beside(file: Path) -> str:
    """Return where a mended copy of a file may go, as a word of a shell command."""
    return quoted(file.with_name(f"{file.stem}.new{file.suffix}"))


def _read_delimited(file: Path) -> DataFrame:
    # csv rather than pandas: it alone tells the line of a row whose neighbors hold line breaks,
    # and it leaves every value as written.
    lines: list[int] = []
    rows: list[list[str]] = []
    source = io.StringIO(_text(file), newline="")
    delimiter, source_lines = delimited(file.suffix.lower(), source)
    reader = csv.reader(source_lines, delimiter=delimiter, strict=True)
    line = 1
    with _long_fields():
        try:
            for fields in reader:
                if fields:
                    lines.append(line)
                    rows.append(fields)
                line = reader.line_num + 1
        except csv.Error as error:
            raise RecipeError(_quoting_problem(file, line, error)) from error
    names = header(file, rows[0], delimiter)
    _check_widths(file, names, lines, rows)
    values = zip(*rows[1:], strict=True)
    columns = [[value or None for value in column] for column in values] or [[] for _ in names]
    return _frame(file, dict(zip(names, columns, strict=True)), lines[1:])


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters, which would hide our own."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _quoting_problem(file: Path, line: int, error: csv.Error) -> str:
    rule = 'Inside quotes, write a quote twice: "He said ""no""."'
    if "end of data" in str(error):
        return f'The row at line {line} of {file} opens a quote (") that never closes. {rule}'
    return (
        f'The row at line {line} of {file} goes on after its closing quote ("). {rule} '
        f"A field that starts with a quote must be quoted as a whole."
    )


def header(file: Path, fields: Sequence[str], delimiter: str) -> list[str]:
    """Return the names of the columns; a nameless one is called ``column N``.

    Args:
        file: The file, for messages.
        fields: Its first row.
        delimiter: What parts them.

    Raises:
        RecipeError: The columns are parted by something else, or two have one name.
    """
    if len(fields) == 1:
        others = [mark for mark in _DELIMITERS if mark != delimiter and mark in fields[0]]
        if others:
            ways = {"\t": "Rename the file to .tsv.", ",": "Rename the file to .csv."}
            raise RecipeError(
                f"The header of {file} is one single column, {shown(fields[0])}: the columns seem "
                f"to be separated by {_DELIMITERS[others[0]]}, not by {_DELIMITERS[delimiter]}. "
                + ways.get(others[0], f"Save it with {_DELIMITERS[delimiter]}.")
            )
    names = [name.strip() or f"column {number}" for number, name in enumerate(fields, 1)]
    _check_unique(file, names)
    return names


def _check_unique(file: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(
            f"{file} has more than one column named {listed(map(shown, twice))}. Rename one."
        )


def _check_widths(file: Path, names: list[str], lines: list[int], rows: list[list[str]]) -> None:
    wrong = [
        f"line {line} has {len(fields)}"
        for line, fields in zip(lines, rows, strict=True)
        if len(fields) != len(names)
    ]
    if wrong:
        raise RecipeError(
            f"The header of {file} names {len(names)} columns ({listed(map(shown, names))}), but "
            f"{listed(wrong, 3)}. Put a text that holds a separator or a line break in quotes, "
            f'like "this, and that".'
        )


def _read_jsonl(file: Path) -> DataFrame:
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    # Not splitlines(), which also breaks at characters that JSON allows inside strings.
    for number, line in enumerate(_text(file).split("\n"), 1):
        if line.strip():
            lines.append(number)
            rows.append(_json_object(file, number, line))
    names = dict.fromkeys(name for row in rows for name in row)
    return _frame(file, {name: [row.get(name) for row in rows] for name in names}, lines)


def _json_object(file: Path, number: int, line: str) -> dict[str, Any]:
    where = f"Line {number} of {file}"
    rule = 'Each line must be one JSON object, like {"text": "Nice!", "label": "good"}.'
    try:
        row = json.loads(line)
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{where} holds half a character: \\u{ord(error.object[error.start]):04x} stands "
            f"alone, without the other half of its pair. Write the line anew or take it out."
        ) from error
    except (ValueError, RecursionError) as error:
        array = f" For a JSON array: jq -c '.[]' {quoted(file)} > {beside(file)}"
        hint = array if line.lstrip().startswith("[") else ""
        detail = str(error)
        if isinstance(error, json.JSONDecodeError):
            detail = f"{error.msg} at column {error.colno}"
        raise RecipeError(f"{where} is not JSON ({detail}). {rule}{hint}") from error
    if isinstance(row, dict):
        return row
    if isinstance(row, list):
        raise RecipeError(
            f"{where} is a JSON array. {rule} For an array of objects: "
            f"jq -c '.[]' {quoted(file)} > {beside(file)}"
        )
    raise RecipeError(f"{where} is {shown(line.strip())}, no JSON object. {rule}")


def _read_lines(file: Path) -> DataFrame:
    """Read a text a line, without labels."""
    written = enumerate(_text(file).split("\n"), start=1)
    said = {number: line.rstrip("\r") for number, line in written if line.strip()}
    return _frame(file, {"text": list(said.values())}, list(said))


def _read_parquet(file: Path) -> DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pa.BufferReader(_bytes(file))).read()
        table.validate(full=True)  # strings in Parquet need not be UTF-8
        _check_unique(file, table.column_names)
        # Without the metadata a pandas index is a column like any other; integers stay integers.
        frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"{file} cannot be read as Parquet: {error}. Write it anew, or rename it after what "
            f"it holds."
        ) from error
    frame.index = range(1, len(frame) + 1)
    return _checked(file, frame.rename_axis("row"))


def _frame(file: Path, columns: dict[str, list[Any]], lines: list[int]) -> DataFrame:
    import pandas as pd

    index = pd.Index(lines, name="line")
    return _checked(file, pd.DataFrame(columns, index=index, dtype=object))


def _checked(file: Path, frame: DataFrame) -> DataFrame:
    if frame.empty:
        names = listed(map(shown, frame.columns)) or "none"
        raise RecipeError(f"{file} has columns ({names}) but no rows. Add labelled rows.")
    return frame


_READERS: dict[str, Callable[[Path], DataFrame]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}
