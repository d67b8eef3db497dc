"""Structured logs: one JSON object a line, written by a thread of its own, without any text.

What clients send is never an argument of a log call; of an unexpected error the log has the type
and the places in the code, but not its message, which may quote a text.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

_LOGGERS = ("potstill", "uvicorn")
#: Lines that may wait for a reader who is slow; more are dropped rather than kept in memory.
_WAITING = 10_000


class JsonLines(logging.Formatter):
    """Writes ``time``, ``level``, ``event`` and the fields of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, ensure_ascii=False)


class _Handler(logging.handlers.QueueHandler):
    """Hands records over as they are, without formatting them in the event loop."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record: the queue is full, because nobody reads."""


def start(level: str, stream: TextIO | None = None) -> logging.handlers.QueueListener:
    """Send the server's and uvicorn's logs to a stream; `stop` of what is returned ends it.

    Args:
        level: For example ``"info"``, which has a line for each request.
        stream: Standard error if None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    records: queue.Queue[logging.LogRecord] = queue.Queue(_WAITING)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [_Handler(records)]
        logger.propagate = False
        logger.setLevel(level.upper())
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    return listener
