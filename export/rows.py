"""Tables of any size, looked through once and then read window by window.

CSV, TSV and JSON lines need nothing but the standard library, so that a line that cannot be read
can be named by its number; pyarrow reads Parquet. What is held at one time is a window, however
long the table is.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from export.errors import ExportError

Row = dict[str, Any]
#: Rows of a CSV, TSV or JSON-lines table, or a ``pyarrow.Table``.
Window = list[Row] | Any
Piece = TypeVar("Piece")

#: A window ends at so many rows or bytes, whichever comes first.
WINDOW_ROWS, WINDOW_BYTES = 8192, 16 * 2**20
#: Rows and bytes that are read from a Parquet file at a time.
_PARQUET_ROWS, _PARQUET_BUFFER = 512, 2**20
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
#: What a JSON value becomes in Parquet; whatever else there is becomes its JSON text.
_KINDS = {str: "string", bool: "bool", int: "int64", float: "double"}
JSON = "json"
#: What each of the columns with texts has, and which option of a command names it.
_ASKED = (("texts", "--text"), ("second texts", "--pair"))


@dataclass(frozen=True)
class Source:
    """A table that was looked through.

    Attributes:
        path: The file; its suffix says how it is read.
        texts: The column with the texts, and that with the second ones, if there are pairs.
        rows: How many there are.
        kinds: Column to what it holds: ``string``, ``bool``, ``int64``, ``double``, or ``json`` for
            anything else and for mixtures. The columns of a Parquet file keep their own types, and
            have ``json`` here.
        sha256: Of the file.
        stamp: Its size in bytes and the time of its last change, in nanoseconds.
    """

    path: Path
    texts: Sequence[str]
    rows: int
    kinds: Mapping[str, str]
    sha256: str
    stamp: tuple[int, int]

    def windows(self) -> Iterator[Window]:
        """Yield the rows in their order; one empty window if there are none.

        Raises:
            ExportError: A row cannot be read, or the file has changed since it was looked through.
        """
        if suffix_of(self.path) == ".parquet":
            yield from _parquet_windows(self.path)
        else:
            yield from windows_of(_read(self.path, self.texts))
        if stamp_of(self.path) != self.stamp:
            raise ExportError(f"{self.path} has changed while it was read. Run the command again.")


def look_through(path: Path, *texts: str) -> Source:
    """Read a table once: are all rows readable, and what is in its columns?

    Args:
        path: The file.
        texts: Columns that have to be there and hold texts: the first, and the second of pairs.

    Raises:
        ExportError: The file is missing, a pipe, of an unknown kind, broken, or without such a
            column.
    """
    if path.is_fifo():
        raise ExportError(
            f"{path} is a pipe, and a table is read twice. Write it to a file first; or send JSON "
            "lines to standard input: --input - --output -."
        )
    suffix = suffix_of(path)
    if not path.is_file():
        raise ExportError(f"There is no file {path}. Check the path.")
    stamp = stamp_of(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    look = _look_parquet if suffix == ".parquet" else _look_lines
    rows, kinds = look(path, texts)
    check_texts(texts, kinds, str(path))
    return Source(path, texts, rows, kinds, digest, stamp)


def check_texts(texts: Sequence[str], names: Iterable[str], where: str) -> None:
    """Refuse a table that lacks a column with texts.

    Args:
        texts: The column with the texts, and that with the second ones, if there are pairs.
        names: Those that the table has.
        where: What to call it.

    Raises:
        ExportError: It does.
    """
    for text, (what, option) in zip(texts, _ASKED, strict=False):
        if text not in names:
            raise ExportError(
                f"{where} has no column {text!r}. Its columns are {_listed(names)}; name the one "
                f"with the {what}: {option} COLUMN."
            )


def suffix_of(path: Path) -> str:
    """Return a table's suffix in small letters.

    Raises:
        ExportError: It is none of those that can be read and written.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise ExportError(f"{path} is a folder. Name a table: a file.")
    if suffix not in SUFFIXES:
        raise ExportError(
            f"{path} is not a table that can be read or written: its name has to end in "
            f"{', '.join(SUFFIXES)}."
        )
    return suffix


def delimited(suffix: str, lines: Iterator[str]) -> tuple[str, Iterator[str]]:
    """Find out what parts the fields of a table.

    Where a comma is part of numbers, spreadsheets write semicolons into a ``.csv`` file: they are
    taken if the header has some, and no comma, outside of quotes.

    Args:
        suffix: ``.csv`` or ``.tsv``.
        lines: Of the table, from the first.

    Returns:
        The delimiter, and all lines.
    """
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    bare = re.sub('"[^"]*"', "", "".join(head))
    usual = DELIMITERS[suffix]
    semicolons = usual == "," and "," not in bare and ";" in bare
    return ";" if semicolons else usual, chain(head, lines)


def texts_of(window: Window, column: str) -> list[str | None]:
    """Return the texts of a window; None where there is none."""
    if isinstance(window, list):
        return [row.get(column) for row in window]
    found: list[str | None] = window.column(column).to_pylist()
    return found


def windows_of(rows: Iterable[tuple[Piece, int]]) -> Iterator[list[Piece]]:
    """Gather rows, given with their bytes, into windows; one empty window if there are none."""
    yield from _gathered((row, 1, size) for row, size in rows)


def _gathered(pieces: Iterable[tuple[Piece, int, int]]) -> Iterator[list[Piece]]:
    held: list[Piece] = []
    rows = size = 0
    empty = True
    for piece, count, weight in pieces:
        held.append(piece)
        rows += count
        size += weight
        if rows >= WINDOW_ROWS or size >= WINDOW_BYTES:
            yield held
            held, rows, size, empty = [], 0, 0, False
    if held or empty:
        yield held


# --- Lines: CSV, TSV, JSON lines --------------------------------------------------------------


def json_lines(
    lines: Iterable[bytes], name: str, texts: Sequence[str]
) -> Iterator[tuple[Row, int]]:
    """Yield the objects of JSON lines with their size in bytes; blank lines are no rows.

    Args:
        lines: UTF-8.
        name: What to call their source in a message.
        texts: The fields that have to hold a text, be null or be absent.

    Raises:
        ExportError: A line is not such an object.
    """
    for number, line in enumerate(lines, start=1):
        where, content = f"Line {number} of {name}", _decoded(line, number, name)
        if not content.strip():
            continue
        try:
            row = json.loads(content)
            if "\\u" in content:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise ExportError(
                f"{where} is not JSON: {error}. Each line is one object, such as "
                '{"text": "Nice!"}.'
            ) from error
        if not isinstance(row, dict):
            raise ExportError(f'{where} is no JSON object, such as {{"text": "Nice!"}}.')
        for text in texts:
            if not isinstance(row.get(text), str | None):
                raise ExportError(
                    f"{where} holds no text in {text!r}, but {json.dumps(row[text])[:40]}. Write a "
                    "string, or null where there is none."
                )
        yield row, len(line)


def _read(path: Path, texts: Sequence[str]) -> Iterator[tuple[Row, int]]:
    """Yield the rows of a file of lines with their size in bytes, about."""
    if suffix_of(path) == ".jsonl":
        with path.open("rb") as file:
            yield from json_lines(file, str(path), texts)
        return
    fields = _fields(path)
    names = _header(path, fields)
    for line, values in fields:
        if len(values) != len(names):
            raise ExportError(
                f"Line {line} of {path} has {len(values)} fields, and the header names "
                f"{len(names)} columns. Put a text that holds a separator or a line break in "
                'quotes, like "this, and that".'
            )
        row = dict(zip(names, (value or None for value in values), strict=True))
        yield row, sum(map(len, values))


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every row of a CSV or TSV file with the line at which it starts."""
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 131,072 characters of before
    with path.open("rb") as file:
        said = (_decoded(line, number, str(path)) for number, line in enumerate(file, start=1))
        delimiter, lines = delimited(suffix_of(path), said)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        line = 1
        try:
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1
        except csv.Error as error:
            raise ExportError(
                f"The row at line {line} of {path} is not well quoted: {error}. A field that "
                'starts with a quote is quoted as a whole, and a quote in it is written twice: "He '
                'said ""no""."'
            ) from error


def _header(path: Path, fields: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, first = next(fields, (0, []))
    names = [name.strip() or f"column {number}" for number, name in enumerate(first, start=1)]
    return _unique(path, names)


def _unique(path: Path, names: Sequence[str]) -> list[str]:
    twice = {name: None for name in names if names.count(name) > 1}
    if twice or not names:
        if not names:
            raise ExportError(f"{path} is empty. Name a table with rows.")
        raise ExportError(
            f"{path} has more than one column named {_listed(twice)}. Each column needs a name of "
            "its own."
        )
    return list(names)


def _decoded(line: bytes, number: int, name: str) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(
            f"Line {number} of {name} is not UTF-8: byte 0x{line[error.start]:02x} at offset "
            f"{error.start}. Convert it, for example with iconv."
        ) from error


def _look_lines(path: Path, texts: Sequence[str]) -> tuple[int, dict[str, str]]:
    found: dict[str, set[str]] = {}
    if suffix_of(path) in DELIMITERS:
        found = {name: set() for name in _header(path, _fields(path))}
    rows = 0
    for row, _ in _read(path, texts):
        rows += 1
        for name, value in row.items():
            kinds = found.setdefault(name, set())
            if value is not None:
                kinds.add(_kind(value))
    if not found:
        raise ExportError(f"{path} is empty. Name a file that holds rows.")
    return rows, {name: _common(kinds) for name, kinds in found.items()}


def _kind(value: Any) -> str:
    big = isinstance(value, int) and not -(2**63) <= value < 2**63
    return JSON if big else _KINDS.get(type(value), JSON)


def _common(kinds: set[str]) -> str:
    if kinds == {"int64", "double"}:
        return "double"
    return min(kinds, default="string") if len(kinds) < 2 else JSON


# --- Parquet ----------------------------------------------------------------------------------


def _look_parquet(path: Path, texts: Sequence[str]) -> tuple[int, dict[str, str]]:
    import pyarrow as pa

    file = _open_parquet(path)
    kinds = dict.fromkeys(_unique(path, file.schema_arrow.names), JSON)
    for text in kinds.keys() & texts:
        kind = file.schema_arrow.field(text).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if kind not in (pa.string(), pa.large_string(), pa.string_view()):
            raise ExportError(f"The column {text!r} of {path} holds {kind}, not texts (string).")
    return file.metadata.num_rows, kinds


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # Buffered, a group of rows is read as it is needed, however many rows are in it.
        return parquet.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER)
    except (pa.ArrowException, OSError) as error:
        raise ExportError(f"{path} cannot be read as Parquet: {error}. Write it anew.") from error


def _parquet_windows(path: Path) -> Iterator[Window]:
    import pyarrow as pa

    file = _open_parquet(path)
    for batches in _gathered(_batches(path, file)):
        yield pa.Table.from_batches(batches, file.schema_arrow)


def _batches(path: Path, file: Any) -> Iterator[tuple[Any, int, int]]:
    import pyarrow as pa

    row = 1
    try:
        for batch in file.iter_batches(_PARQUET_ROWS):
            batch.validate(full=True)  # strings in Parquet need not be UTF-8
            yield batch, batch.num_rows, batch.nbytes
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ExportError(
            f"{path} cannot be read from row {row} on: {error}. Write it anew."
        ) from error


def stamp_of(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and the time of its last change, in nanoseconds."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
