"""Tables of any size, read window by window; a line that a run refuses is noted and passed over."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.rows import delimited, windows_of
from recipes.errors import RecipeError
from recipes.look.findings import Origin, Tally
from recipes.tasks.tables import check_file, foreign_encoding, header, read_table
from recipes.tasks.wording import counted, shown

#: Bytes of a line and characters of a field from which on this is no table of texts.
_LONGEST_LINE, _LONGEST_FIELD = 2**26, 2**24
#: Rows and bytes that are read from a Parquet file at a time.
_PARQUET_ROWS, _PARQUET_BUFFER = 512, 2**20

#: A row: its number as the person counts it, and its values by column.
Raw = tuple[int, dict[str, Any]]


@dataclass
class Troubles:
    """What is wrong with a file itself.

    Attributes:
        encoding: The file's encoding, if it is another one than UTF-8 throughout.
        offset: Offset of the first byte that is not UTF-8.
        byte: That byte.
        found: How often and in which lines: ``encoding``, ``nul``, ``quotes``, ``width``, ``json``.
    """

    encoding: str | None = None
    offset: int = 0
    byte: int = 0
    found: dict[str, Tally] = field(default_factory=dict)

    def add(self, kind: str, origin: Origin, number: int, example: str | None = None) -> None:
        """Count one of a kind."""
        self.found.setdefault(kind, Tally()).add(origin, number, example)


def unit_of(path: Path) -> str:
    """Return what the rows of a file are counted in."""
    return "row" if path.suffix.lower() == ".parquet" else "line"


def read_windows(
    path: Path, origin: Origin, troubles: Troubles, seen: Callable[[int], object]
) -> Iterator[list[Raw]]:
    """Yield the rows of a file in windows of bounded size.

    Args:
        path: CSV, TSV, JSON lines, Parquet, or a text a line (``.txt``).
        origin: What messages call it.
        troubles: Where to note what a run would refuse.
        seen: Is told how many bytes were read since it was told last.

    Raises:
        RecipeError: The file is missing, of an unknown kind, empty, or has no usable header.
    """
    check_file(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        read_table(path)  # it says what can be read
        raise AssertionError(path)
    rows = 0
    try:
        for window in windows_of(reader(path, origin, troubles, seen)):
            rows += len(window)
            yield window
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror or error}. Check the file and its permissions."
        ) from error
    if not rows and not troubles.found:
        raise RecipeError(f"{path} holds no rows. Name a file that holds labelled rows.")


_Sized = tuple[Raw, int]
_Seen = Callable[[int], object]


def _lines(path: Path, origin: Origin, troubles: Troubles, seen: _Seen) -> Iterator[str]:
    """Yield every line as text; bytes that are no UTF-8 are noted and left out."""
    with path.open("rb") as file:
        troubles.encoding = foreign_encoding(file.read(1000))
    if troubles.encoding:
        troubles.add("encoding", origin, 1)
        with path.open(encoding=troubles.encoding, errors="ignore", newline="") as text:
            for line in text:
                seen(2 * len(line))
                yield line
        return
    offset = 0
    with path.open("rb") as file:
        for number, data in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
            yield _decoded(data, number, offset, origin, troubles)
            offset += len(data)
            seen(len(data))


def _decoded(data: bytes, number: int, offset: int, origin: Origin, troubles: Troubles) -> str:
    start = len(codecs.BOM_UTF8) if number == 1 and data.startswith(codecs.BOM_UTF8) else 0
    try:
        line = data[start:].decode()
    except UnicodeDecodeError as error:
        at = start + error.start
        if "encoding" not in troubles.found:
            troubles.offset, troubles.byte = offset + at, data[at]
        line = data[start:].decode(errors="ignore")
        troubles.add("encoding", origin, number, data.decode("latin-1").strip())
    if "\0" in line:
        troubles.add("nul", origin, number)
        line = line.replace("\0", "")
    return line


def _read_delimited(
    path: Path, origin: Origin, troubles: Troubles, seen: _Seen
) -> Iterator[_Sized]:
    delimiter, lines = delimited(path.suffix.lower(), _lines(path, origin, troubles, seen))
    fields = _fields(lines, delimiter, origin, troubles)
    _, first = next(fields, (0, []))
    names = header(path, first, delimiter)
    for line, values in fields:
        if len(values) == len(names):
            row = dict(zip(names, (value or None for value in values), strict=True))
            yield (line, row), sum(map(len, values))
        else:
            troubles.add("width", origin, line, f"{len(values)} of {len(names)} fields")


def _fields(
    lines: Iterator[str], delimiter: str, origin: Origin, troubles: Troubles
) -> Iterator[tuple[int, list[str]]]:
    """Yield every well quoted row with its line; after one that is not, begin anew."""
    limit = csv.field_size_limit(_LONGEST_FIELD)
    consumed = 0
    try:
        while True:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            line = consumed + 1
            try:
                for fields in reader:
                    if fields:
                        yield line, fields
                    line = consumed + reader.line_num + 1
                return
            except csv.Error as error:
                consumed += reader.line_num
                swallowed = consumed - line
                more = f", and {counted(swallowed, 'line')} with it" if swallowed else ""
                troubles.add("quotes", origin, line, f"{error}{more}")
    finally:
        csv.field_size_limit(limit)


def _read_jsonl(path: Path, origin: Origin, troubles: Troubles, seen: _Seen) -> Iterator[_Sized]:
    for number, line in enumerate(_lines(path, origin, troubles, seen), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield (number, row), len(line)
        else:
            troubles.add("json", origin, number, shown(line.strip()))


def _read_texts(path: Path, origin: Origin, troubles: Troubles, seen: _Seen) -> Iterator[_Sized]:
    for number, line in enumerate(_lines(path, origin, troubles, seen), start=1):
        if line.strip():
            yield (number, {"text": line.rstrip("\r\n")}), len(line)


def _read_parquet(path: Path, origin: Origin, troubles: Troubles, seen: _Seen) -> Iterator[_Sized]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        # Buffered, a group of rows is read as it is needed, however many rows are in it.
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER)
        bytes_a_row = path.stat().st_size / max(1, file.metadata.num_rows)
        for batch in file.iter_batches(_PARQUET_ROWS):
            size = batch.nbytes // max(1, len(batch))
            for row in _plain_rows(batch, origin, number, troubles):
                number += 1
                yield (number, row), size
            seen(int(bytes_a_row * len(batch)))
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"{path} cannot be read as Parquet after {number:,} rows: {error}. Write it anew, or "
            "rename it after what it holds."
        ) from error


def _plain_rows(
    batch: Any, origin: Origin, before: int, troubles: Troubles
) -> Iterator[dict[str, Any]]:
    """Return a batch as plain values; strings in Parquet need not be UTF-8."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
        yield from batch.to_pylist()
        return
    except pa.ArrowInvalid:
        columns = [_as_bytes(column) for column in batch.columns]
    for place, values in enumerate(zip(*columns, strict=True)):
        row = {}
        for name, value in zip(batch.schema.names, values, strict=True):
            text = value.decode(errors="ignore") if isinstance(value, bytes) else value
            if isinstance(value, bytes) and text.encode() != value:
                troubles.add("encoding", origin, before + place + 1, shown(text))
            row[name] = text
        yield row


def _as_bytes(column: Any) -> list[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
    values: list[Any] = column.to_pylist()
    return values


_READERS: dict[str, Callable[[Path, Origin, Troubles, _Seen], Iterator[_Sized]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_texts,
}
