"""An output that is written part by part, and that a killed run can go on with.

Parquet files cannot be continued, and lines may be cut off anywhere. So a part is a file of its own
that appears whole or not at all, for every format alike: none is lost and none repeated. The folder
``OUTPUT.partial`` holds them, and says of which run they are; they are joined at the end.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from export.errors import ExportError
from export.rows import DELIMITERS, JSON, Row, Window, stamp_of, suffix_of

#: In the folder besides the parts: held by the process that writes, and which run it is.
_LOCK, _RUN = "lock", "run.json"
#: What the run also says once the output is whole: its size and time, which renaming keeps.
_WHOLE = "output"
#: Of a line, as csv.writer is told; see `_Lines`.
_ENDING = "\r\n"


def folder_of(target: Path) -> Path:
    """Return where the parts of an output are kept."""
    return target.with_name(f"{target.name}.partial")


@contextmanager
def partial(target: Path, identity: Mapping[str, Any], overwrite: bool) -> Iterator[Path]:
    """Hold the folder of an output's parts against other processes.

    Args:
        target: The output.
        identity: What the parts follow from, by the names that a message gives it.
        overwrite: Drop parts of another identity.

    Yields:
        The folder; what is in it is of this identity.

    Raises:
        ExportError: Another process writes the output, there are parts of another identity, or the
            folder holds something else, or there is no place for it.
    """
    folder = folder_of(target)
    if not target.absolute().parent.is_dir():
        raise ExportError(f"There is no folder {target.absolute().parent}. Make it first.")
    folder.mkdir(exist_ok=True)
    with _held(folder, target):
        _take_up(folder, identity, overwrite)
        yield folder


def finish(target: Path, identity: Mapping[str, Any]) -> bool:
    """Remove the parts beside an output that is whole: their run was ended while it did so.

    Args:
        target: The output.
        identity: See `partial`.

    Returns:
        Whether it is so; if not, or if they are of another identity, nothing is removed.

    Raises:
        ExportError: Another process writes the output.
    """
    folder = folder_of(target)
    if not ((folder / _RUN).exists() and target.exists()):
        return False
    with _held(folder, target):
        done = _known(folder) == {**identity, _WHOLE: [*stamp_of(target)]}
        if done:
            _remove(folder)
    return done


@contextmanager
def named(name: str) -> Iterator[None]:
    """Have errors of what is written say its name: that a disk is full comes without one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or name
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever ends the process."""
    new = path.with_name(f"new-{path.name}")
    with _written(new) as file:
        file.write(content)
    new.replace(path)


def join(parts: Sequence[Path], columns: Sequence[str], target: Path) -> None:
    """Make the output of its parts, and remove their folder.

    Args:
        parts: In their order, one or more, all in the folder that ``partial`` gave.
        columns: For the header of CSV and TSV.
        target: The output; it appears whole.
    """
    folder, suffix = parts[0].parent, suffix_of(target)
    whole = folder / "joined"
    with _written(whole) as file:
        if suffix == ".parquet":
            _join_parquet(parts, file)
        else:
            file.write(_delimited([columns], suffix) if suffix in DELIMITERS else b"")
            for each in parts:
                with each.open("rb") as lines:
                    shutil.copyfileobj(lines, file)
    write_whole(folder / _RUN, json.dumps(_known(folder) | {_WHOLE: stamp_of(whole)}).encode())
    whole.replace(target)
    _remove(folder)


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is on the disk afterwards."""
    with named(str(path)), path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _held(folder: Path, target: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(
            f"Another process is writing {target}. Wait for it, or name another output."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _known(folder: Path) -> dict[str, Any]:
    """Return what the folder says of its run; nothing if that is damaged."""
    try:
        known = json.loads((folder / _RUN).read_bytes())
    except (ValueError, RecursionError):
        known = None
    return known if isinstance(known, dict) else {}


def _take_up(folder: Path, identity: Mapping[str, Any], overwrite: bool) -> None:
    run = folder / _RUN
    if run.exists():
        known = _known(folder)
        differ = [name for name in identity if known.get(name) != identity[name]]
        if not differ:
            return
        if not (known or overwrite):
            raise ExportError(
                f"{run} is damaged: nobody knows which run its parts are of. Begin anew with "
                "--overwrite."
            )
        if not overwrite:
            raise ExportError(
                f"{folder} holds parts of a run with another {' and another '.join(differ)}. "
                "Finish it as it was begun, or begin anew with --overwrite."
            )
    elif strangers := sorted(path.name for path in folder.iterdir() if not _is_ours(path)):
        raise ExportError(
            f"{folder} holds {strangers[0]}, which is of no unfinished run. Move it away, or name "
            "another output."
        )
    _clear(folder, _LOCK)
    write_whole(run, json.dumps(identity).encode())


def _remove(folder: Path) -> None:
    _clear(folder)
    folder.rmdir()


def _clear(folder: Path, *kept: str) -> None:
    """Remove the parts and what holds them; whose they were is forgotten last."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name in (_LOCK, _RUN), path.name)):
        if path.name not in kept and _is_ours(path):
            path.unlink()


def _is_ours(path: Path) -> bool:
    return path.name in (_LOCK, _RUN, "joined") or path.name.startswith(("part-", "new-"))


# --- What is in a part ------------------------------------------------------------------------


def encode(
    window: Window,
    answers: Mapping[str, Sequence[Any]],
    kinds: Mapping[str, str],
    suffix: str,
    first: str = "string",
) -> bytes:
    """Return a window and its answers as the bytes of a part.

    JSON lines keep the fields that a row has, and say null for numbers that JSON does not know. In
    CSV and TSV what is missing is an empty field, and lists, objects and truth values are JSON.

    Args:
        window: N rows.
        answers: New column to its N values: first the labels, then their probabilities.
        kinds: The window's columns, see `Source.kinds`; JSON lines need none.
        suffix: Of the output.
        first: What the first new column holds: ``string``, ``double``, or ``list`` of strings.

    Returns:
        Lines without a header, or a whole Parquet file.
    """
    if suffix == ".parquet":
        return _parquet(window, answers, kinds, first)
    rows = window if isinstance(window, list) else window.to_pylist()
    pairs = zip(rows, zip(*answers.values(), strict=True), strict=True)
    if suffix == ".jsonl":
        lines = (row | dict(zip(answers, values, strict=True)) for row, values in pairs)
        return "".join(f"{_json_text(line)}\n" for line in lines).encode()
    return _delimited(([*map(row.get, kinds), *values] for row, values in pairs), suffix)


class _Lines(io.StringIO):
    """Ends lines with a line feed alone, though their writer ends them with a carriage return, too.

    It quotes only what it ends lines with, and to readers a carriage return ends a line by itself.
    """

    def write(self, line: str) -> int:
        return super().write(f"{line.removesuffix(_ENDING)}\n")


def _delimited(lines: Iterable[Iterable[Any]], suffix: str) -> bytes:
    text = _Lines(newline="")
    writer = csv.writer(text, delimiter=DELIMITERS[suffix], lineterminator=_ENDING)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _json_text(value) if isinstance(value, dict | list | bool) else str(value)


def _json_text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    if "NaN" in text or "Infinity" in text:  # not of JSON; a text may say so, too
        text = json.dumps(json.loads(text, parse_constant=lambda _: None), ensure_ascii=False)
    return text


def _parquet(
    window: Window, answers: Mapping[str, Sequence[Any]], kinds: Mapping[str, str], first: str
) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    kind = pa.list_(pa.string()) if first == "list" else first
    table = _as_table(window, kinds) if isinstance(window, list) else window
    for place, (name, values) in enumerate(answers.items()):
        table = table.append_column(name, pa.array(values, "double" if place else kind))
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _as_table(rows: Sequence[Row], kinds: Mapping[str, str]) -> Any:
    import pyarrow as pa

    columns = {}
    for name, kind in kinds.items():
        values = [_typed(row.get(name), kind) for row in rows]
        columns[name] = pa.array(values, "string" if kind == JSON else kind)
    return pa.table(columns)


def _typed(value: Any, kind: str) -> Any:
    if value is None or kind not in (JSON, "double"):
        return value
    return float(value) if kind == "double" else _json_text(value)


def _join_parquet(parts: Sequence[Path], file: Any) -> None:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, parquet.read_schema(parts[0])) as writer:
        for each in parts:
            writer.write_table(parquet.read_table(each))
