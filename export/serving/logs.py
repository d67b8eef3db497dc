"""Structured logs: one JSON object a line, written by a thread of its own, without any text.

What clients send is never an argument of a log call; of an unexpected error the log has the type
and the places in the code, but not its message, which may quote a text.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import to_json

LOGGERS = ("potstill", "uvicorn", "asyncio", "py.warnings")
#: Lines that may wait for a reader who is slow; then the oldest go, rather than memory.
_WAITING = 10_000
_SECONDS = 0.2


class JsonLines(logging.Formatter):
    """Writes ``time``, ``level``, ``event`` and the fields of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": _event(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        try:
            return to_json(line, fallback=str).decode()
        except ValueError:  # a path that is not UTF-8
            return json.dumps(line, default=str)


def _event(record: logging.LogRecord) -> str:
    """Return what happened; of asyncio's messages what comes before values, which may be texts."""
    if record.name == "asyncio":
        return record.getMessage().partition("\n")[0].partition("(")[0].strip()
    return record.getMessage().strip()


class Writer(logging.Handler):
    """Keeps records and writes them several at a time: a line costs the event loop microseconds.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._stream = stream
        self._records: deque[logging.LogRecord] = deque(maxlen=_WAITING)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def close(self) -> None:
        """Write what is kept, and end."""
        self._stopped.set()
        self._thread.join()
        super().close()

    def _write(self) -> None:
        last = False
        while not last:
            last = self._stopped.wait(_SECONDS)
            lines = []
            while self._records:
                lines.append(self.format(self._records.popleft()) + "\n")
            if lines:
                try:
                    self._stream.write("".join(lines))
                    self._stream.flush()
                except (OSError, ValueError):  # nobody reads, or the stream is closed
                    return


def start(level: str, stream: TextIO | None = None) -> Writer:
    """Send the server's, uvicorn's and Python's logs to a stream; `Writer.close` ends it.

    Args:
        level: For example ``"info"``, which has a line for each request.
        stream: Standard error if None.
    """
    writer = Writer(stream or sys.stderr)
    logging.captureWarnings(True)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [writer]
        logger.propagate = False
        logger.setLevel(level.upper())
    return writer
